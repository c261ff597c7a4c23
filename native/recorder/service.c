/* The recorder's own threads. */
#include "session.h"

uint64_t ct_coarse_clock;

#define MILLISECONDS(n)                                                                                                \
    {                                                                                                                  \
        .QuadPart = -10000LL * (n)                                                                                     \
    }

static void set_writer(struct session *s, HANDLE id)
{
    __atomic_store_n(&s->writer_id, id, __ATOMIC_SEQ_CST);
}

/* Brings full blocks into the file, so that the threads that filled them need not. */
static DWORD NTAPI writer(void *argument)
{
    static const LARGE_INTEGER retry = MILLISECONDS(20), pause = MILLISECONDS(100);
    struct session *s = argument;
    HANDLE id;
    __atomic_fetch_add(&s->running, 1, __ATOMIC_SEQ_CST);
    __asm__ volatile("movq %%gs:0x48, %0" : "=r"(id));
    set_writer(s, id);
    while (ct_recording(s)) {
        if (!ct_drain(s)) {
            NtDelayExecution(FALSE, &retry);
            continue;
        }
        ct_store32(&s->writer_idle, 1);
        struct slot *slot = ct_take_full(s);
        if (slot) /* filled just before we said that we sleep */
            ct_store32(&slot->state, SLOT_FULL);
        else
            NtWaitForAlertByThreadId(NULL, &pause);
        ct_store32(&s->writer_idle, 0);
        if (ct_load32(&s->leaving))
            ct_sweep(s, false);
    }
    set_writer(s, NULL);
    ct_drain(s);
    ct_release(s);
    ct_tidy();
    return 0;
}

/* Costs a processor, for event code that needs only a load where rdtsc takes 20 times as long. */
static DWORD NTAPI coarse_clock(void *argument)
{
    struct session *s = argument;
    __atomic_fetch_add(&s->running, 1, __ATOMIC_SEQ_CST);
    while (ct_recording(s)) {
        __atomic_store_n(&ct_coarse_clock, ct_rdtsc() << 24, __ATOMIC_SEQ_CST);
        for (int i = 0; i < 16; i++)
            __builtin_ia32_pause();
    }
    ct_release(s);
    return 0;
}

/* The thread must not record, and the program's DLLs need not hear of it. So it is no thread to the loader, and its
 * cursor is set before it runs. */
static bool start_thread(DWORD(NTAPI *entry)(void *), struct session *s)
{
    enum { CREATE_STOPPED = 1, SKIP_THREAD_ATTACH = 2, STACK = 0x10000 };
    HANDLE thread;
    char *teb = NULL;
    nt_thread_attributes wanted = {sizeof wanted, NT_ATTRIBUTE_TEB, sizeof teb, &teb, NULL};
    if (!NT_SUCCESS(NtCreateThreadEx(&thread, THREAD_ALL_ACCESS, NULL, NT_PROCESS, (void *)(uintptr_t)entry, s,
                                     CREATE_STOPPED | SKIP_THREAD_ATTACH, 0, STACK, STACK, &wanted)))
        return false;
    __atomic_fetch_add(&s->users, 1, __ATOMIC_SEQ_CST);
    uint64_t cursor = ct_units_of(ct_busy_block);
    bool muted = teb && NT_SUCCESS(NtWriteVirtualMemory(NT_PROCESS, teb + s->cursor, &cursor, sizeof cursor, NULL));
    if (muted) {
        /* Wine cannot stop a thread that is only being made, and somebody may want to as soon as we are back. */
        uint32_t before = ct_load32(&s->running);
        NtResumeThread(thread, NULL);
        for (int looks = 0; looks < 10000 && ct_load32(&s->running) == before; looks++)
            NtYieldExecution();
    } else {
        NtTerminateThread(thread, 0);
        ct_release(s);
    }
    NtClose(thread);
    return muted;
}

void ct_start_service(struct session *s)
{
    start_thread(writer, s);
    if (s->header->clock == CT_CLOCK_COARSE) {
        ct_coarse_clock = ct_rdtsc() << 24;
        start_thread(coarse_clock, s);
    }
}

void ct_wake_writer(struct session *s)
{
    HANDLE id = __atomic_load_n(&s->writer_id, __ATOMIC_SEQ_CST);
    if (id && ct_swap32(&s->writer_idle, 1, 0))
        NtAlertThreadByThreadId(id);
}

void ct_wake_host(struct session *s)
{
    if (ct_swap64(&s->header->ring_next, 1, 0))
        NtSetEvent(ct_handle(s->given.full), NULL);
}

bool ct_wait_for_room(struct session *s)
{
    static const LARGE_INTEGER pause = MILLISECONDS(20), now = MILLISECONDS(0);
    if (s->counted) {
        ct_wake_host(s);
        if (NtWaitForSingleObject(ct_handle(s->given.room), FALSE, (LARGE_INTEGER *)&pause) == STATUS_WAIT_0)
            return false;
        if (NtWaitForSingleObject(ct_handle(s->given.host_process), FALSE, (LARGE_INTEGER *)&now) == STATUS_WAIT_0)
            ct_store32(&s->header->stop, 1); /* nobody else counts */
        return false;
    }
    if (s->given.host_process) {
        NTSTATUS status = NtWaitForSingleObject(ct_handle(s->given.host_process), FALSE, (LARGE_INTEGER *)&pause);
        if (status == STATUS_WAIT_0 || status == STATUS_TIMEOUT)
            return status == STATUS_WAIT_0;
    }
    NtDelayExecution(FALSE, &pause);
    return false;
}
