/* What the recorder uses of Windows: system calls and loader functions of ntdll, which touch neither the thread's last
 * error nor any lock of the target, and are out of reach of hooks on kernel32. */
#ifndef CALLTRACE_NT_H
#define CALLTRACE_NT_H

#define WIN32_LEAN_AND_MEAN
#define WIN32_NO_STATUS
#include <windows.h>
#undef WIN32_NO_STATUS
#include <ntstatus.h>
#include <winternl.h>

#define NT_PROCESS ((HANDLE)(intptr_t)-1)

typedef struct {
    NTSTATUS exit_status;
    void *teb;
    CLIENT_ID client_id;
    ULONG_PTR affinity_mask;
    LONG priority;
    LONG base_priority;
} nt_thread_basic_information;

typedef struct { /* PS_ATTRIBUTE_LIST of one attribute */
    SIZE_T total_size;
    ULONG_PTR attribute;
    SIZE_T size;
    void *value;
    SIZE_T *returned_size;
} nt_thread_attributes;

enum { NT_ATTRIBUTE_TEB = 0x10004 };

typedef struct { /* LDR_DLL_NOTIFICATION_DATA, of a load and of an unload alike */
    ULONG flags;
    const UNICODE_STRING *full_name;
    const UNICODE_STRING *base_name;
    void *base;
    ULONG size;
} nt_dll_notification;

enum { NT_DLL_LOADED = 1, NT_DLL_UNLOADED = 2 };

typedef void NTAPI nt_dll_callback(ULONG reason, const nt_dll_notification *data, void *context);
typedef NTSTATUS NTAPI nt_register_dll_notification(ULONG flags, nt_dll_callback *callback, void *context,
                                                    void **cookie);
typedef NTSTATUS NTAPI nt_unregister_dll_notification(void *cookie);

NTSTATUS NTAPI NtCreateSection(HANDLE *section, ACCESS_MASK access, OBJECT_ATTRIBUTES *attributes, LARGE_INTEGER *size,
                               ULONG protection, ULONG allocation, HANDLE file);
NTSTATUS NTAPI NtMapViewOfSection(HANDLE section, HANDLE process, void **base, ULONG_PTR zero_bits, SIZE_T commit,
                                  LARGE_INTEGER *offset, SIZE_T *size, ULONG inherit, ULONG allocation,
                                  ULONG protection);
NTSTATUS NTAPI NtUnmapViewOfSection(HANDLE process, void *base);
NTSTATUS NTAPI NtAllocateVirtualMemory(HANDLE process, void **base, ULONG_PTR zero_bits, SIZE_T *size, ULONG type,
                                       ULONG protection);
NTSTATUS NTAPI NtFreeVirtualMemory(HANDLE process, void **base, SIZE_T *size, ULONG type);
NTSTATUS NTAPI NtProtectVirtualMemory(HANDLE process, void **base, SIZE_T *size, ULONG protection, ULONG *before);
NTSTATUS NTAPI NtReadVirtualMemory(HANDLE process, const void *address, void *buffer, SIZE_T size, SIZE_T *done);
NTSTATUS NTAPI NtWriteVirtualMemory(HANDLE process, void *address, const void *buffer, SIZE_T size, SIZE_T *done);
NTSTATUS NTAPI NtReadFile(HANDLE file, HANDLE event, PIO_APC_ROUTINE apc, void *context, IO_STATUS_BLOCK *io,
                          void *buffer, ULONG size, LARGE_INTEGER *offset, ULONG *key);
NTSTATUS NTAPI NtWriteFile(HANDLE file, HANDLE event, PIO_APC_ROUTINE apc, void *context, IO_STATUS_BLOCK *io,
                           const void *buffer, ULONG size, LARGE_INTEGER *offset, ULONG *key);
NTSTATUS NTAPI NtDelayExecution(BOOLEAN alertable, const LARGE_INTEGER *time);
NTSTATUS NTAPI NtWaitForMultipleObjects(ULONG count, const HANDLE *handles, ULONG any, BOOLEAN alertable,
                                        const LARGE_INTEGER *time);
NTSTATUS NTAPI NtYieldExecution(void);
NTSTATUS NTAPI NtSetEvent(HANDLE event, LONG *previous);
NTSTATUS NTAPI NtOpenThread(HANDLE *thread, ACCESS_MASK access, OBJECT_ATTRIBUTES *attributes, CLIENT_ID *id);
NTSTATUS NTAPI NtCreateThreadEx(HANDLE *thread, ACCESS_MASK access, OBJECT_ATTRIBUTES *attributes, HANDLE process,
                                void *start, void *argument, ULONG flags, ULONG_PTR zero_bits, SIZE_T commit,
                                SIZE_T reserve, nt_thread_attributes *attributes_of_it);
NTSTATUS NTAPI NtResumeThread(HANDLE thread, ULONG *count);
NTSTATUS NTAPI NtTerminateThread(HANDLE thread, NTSTATUS status);
NTSTATUS NTAPI NtAlertThreadByThreadId(HANDLE thread_id);
NTSTATUS NTAPI NtWaitForAlertByThreadId(const void *address, const LARGE_INTEGER *time);
void *NTAPI RtlAddVectoredExceptionHandler(ULONG first, PVECTORED_EXCEPTION_HANDLER handler);
ULONG NTAPI RtlRemoveVectoredExceptionHandler(void *registration);

#endif
