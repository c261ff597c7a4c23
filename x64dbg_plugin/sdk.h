/* What is used of x64dbg's plugin SDK, version 1. The names of its functions are its own; what they import is listed in
 * x64dbg.def and x64bridge.def, of which the import libraries are made. All text is UTF-8. */
#ifndef CALLTRACE_X64DBG_SDK_H
#define CALLTRACE_X64DBG_SDK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <windows.h>

#ifndef SDK_FUNCTION /* who defines the functions exports them */
#define SDK_FUNCTION __declspec(dllimport)
#endif

enum {
    PLUG_SDKVERSION = 1,
    MAX_LABEL_SIZE = 256,
    MAX_MODULE_SIZE = 256,
    MAX_COMMENT_SIZE = 512,
    GUI_MAX_LINE_SIZE = 65536
};

typedef enum { SEG_DEFAULT = 0 } SEGMENTREG;

typedef struct {
    int pluginHandle; /* given by the debugger; the rest is told to it */
    int sdkVersion;
    int pluginVersion;
    char pluginName[256];
} PLUG_INITSTRUCT;

typedef struct {
    HWND hwndDlg;
    int hMenu;
    int hMenuDisasm;
    int hMenuDump;
    int hMenuStack;
    int hMenuGraph;
    int hMenuMemmap;
    int hMenuSymmod;
} PLUG_SETUPSTRUCT;

typedef enum {
    CB_INITDEBUG = 0, /* a target is about to be had; what is saved of it is loaded after that */
    CB_STOPDEBUG = 1,
    CB_CREATEPROCESS = 2,
    CB_LOADDLL = 7,
    CB_BREAKPOINT = 11, /* one of its user's, before its commands */
    CB_PAUSEDEBUG = 12,
    CB_RESUMEDEBUG = 13,
    CB_DETACH = 16,
    CB_DEBUGEVENT = 17,
    CB_MENUENTRY = 18,
    CB_LOADDB = 21, /* not if there is nothing of a plugin's */
    CB_SAVEDB = 22,
    CB_ADDRINFO = 27
} CBTYPE;
typedef void (*CBPLUGIN)(CBTYPE type, void *info);
typedef bool (*CBPLUGINCOMMAND)(int argc, char **argv);
typedef uint64_t (*CBPLUGINEXPRFUNCTION)(int count, const uint64_t *values, void *userdata);

typedef struct {
    DEBUG_EVENT *DebugEvent;
} PLUG_CB_DEBUGEVENT;

typedef struct {
    int hEntry;
} PLUG_CB_MENUENTRY;

typedef struct json json_t;
typedef struct {
    json_t *root; /* an object with one member for each plugin */
    int loadSaveType;
} PLUG_CB_LOADSAVEDB;

enum { ADDRINFO_MODULE = 0x01, ADDRINFO_LABEL = 0x02, ADDRINFO_NO_OFFSET = 0x80 }; /* BRIDGE_ADDRINFO.flags */

typedef struct {
    int flags; /* what is asked for */
    char module[MAX_MODULE_SIZE];
    char label[MAX_LABEL_SIZE];
    char comment[MAX_COMMENT_SIZE];
    bool isbookmark;
    uint64_t function[3], loop[4], args[3]; /* of no interest here */
} BRIDGE_ADDRINFO;

typedef struct {
    uint64_t addr;
    BRIDGE_ADDRINFO *addrinfo;
    bool retval;
} PLUG_CB_ADDRINFO;

typedef struct {
    const void *data; /* of a PNG file */
    uint64_t size;
} ICONDATA;

typedef enum { GUI_DISASSEMBLY = 0 } GUISELECTIONTYPE;

typedef struct {
    uint64_t start, end; /* VA of the first and last byte */
} SELECTIONDATA;

typedef enum { bp_normal = 1, bp_hardware = 2 } BPXTYPE;
enum { hw_execute = 2 }; /* BRIDGEBP.typeEx */
enum { UE_CH_AFTEREXCEPTIONPROCESSING = 21 };

typedef struct {
    BPXTYPE type;
    uint64_t addr;
    bool enabled, singleshoot;
    bool active; /* its int3 is in the target */
    char name[256];
    char mod[256];
    unsigned short slot;
    unsigned char typeEx, hwSize;
    unsigned int hitCount;
    bool fastResume, silent;
    char breakCondition[256], logText[256], logCondition[256], commandText[256], commandCondition[256];
} BRIDGEBP;

typedef struct {
    int count;
    BRIDGEBP *bp; /* for BridgeFree */
} BPMAP;

typedef struct {
    int ThreadNumber;
    HANDLE Handle;
    DWORD ThreadId;
    uint64_t ThreadStartAddress, ThreadLocalBase;
    char threadName[256];
} THREADINFO;

typedef struct {
    THREADINFO BasicInfo;
    uint64_t ThreadCip;
    DWORD SuspendCount;
    int Priority, WaitReason;
    DWORD LastError;
    FILETIME UserTime, KernelTime, CreationTime;
    uint64_t Cycles;
} THREADALLINFO;

typedef struct {
    int count;
    THREADALLINFO *list; /* for BridgeFree */
    int CurrentThread;   /* the index of the one that its user has chosen */
} THREADLIST;

/* Script::Label::LabelInfo, ListInfo and Script::Label::GetList */
struct label_info {
    char mod[MAX_MODULE_SIZE]; /* with its extension */
    uint64_t rva;
    char text[MAX_LABEL_SIZE];
    bool manual; /* its user's */
};
struct list_info {
    int count;
    size_t size; /* bytes */
    void *data;  /* for BridgeFree */
};
#define LIST_LABELS "?GetList@Label@Script@@YA_NPEAUListInfo@@@Z"

/* x64dbg.dll */
SDK_FUNCTION void _plugin_registercallback(int plugin, CBTYPE type, CBPLUGIN callback);
SDK_FUNCTION bool _plugin_registercommand(int plugin, const char *name, CBPLUGINCOMMAND command,
                                          bool only_when_debugging);
SDK_FUNCTION bool _plugin_registerexprfunction(int plugin, const char *name, int count, CBPLUGINEXPRFUNCTION function,
                                               void *userdata);
SDK_FUNCTION void _plugin_logprint(const char *text);
SDK_FUNCTION bool _plugin_menuaddentry(int menu, int entry, const char *title);
SDK_FUNCTION bool _plugin_menuaddseparator(int menu);
SDK_FUNCTION void _plugin_menuseticon(int menu, const ICONDATA *icon);
SDK_FUNCTION void _plugin_menuentrysethotkey(int plugin, int entry, const char *keys);

SDK_FUNCTION bool _dbg_addrinfoget(uint64_t address, SEGMENTREG segment, BRIDGE_ADDRINFO *info);

/* Stop at the debug event of which a callback is told; it comes back when the target is to go on. */
SDK_FUNCTION void _plugin_debugpause(void);

/* x64bridge.dll */
SDK_FUNCTION void BridgeFree(void *memory);
SDK_FUNCTION bool BridgeSettingGet(const char *section, const char *key, char *value); /* into GUI_MAX_LINE_SIZE */
SDK_FUNCTION bool BridgeSettingSet(const char *section, const char *key, const char *value);
SDK_FUNCTION bool DbgIsDebugging(void);
SDK_FUNCTION bool DbgIsRunning(void);
SDK_FUNCTION DWORD DbgGetThreadId(void); /* of the thread that its user has chosen */
SDK_FUNCTION void DbgGetThreadList(THREADLIST *list);
SDK_FUNCTION int DbgGetBpList(BPXTYPE type, BPMAP *list);
SDK_FUNCTION bool DbgCmdExecDirect(const char *command); /* at once, on this thread */
SDK_FUNCTION bool DbgCmdExec(const char *command);       /* by and by, on the debugger's command thread */
SDK_FUNCTION bool DbgGetCommentAt(uint64_t address,
                                  char *text); /* into MAX_COMMENT_SIZE; one not the user's: "\1..." */
SDK_FUNCTION bool DbgSetAutoCommentAt(uint64_t address, const char *text);
SDK_FUNCTION bool DbgGetLabelAt(uint64_t address, SEGMENTREG segment, char *text); /* into MAX_LABEL_SIZE */
SDK_FUNCTION bool DbgSetAutoLabelAt(uint64_t address, const char *text);
SDK_FUNCTION void GuiReferenceInitialize(const char *name);
SDK_FUNCTION void GuiReferenceAddColumn(int width, const char *title); /* in characters; 0: what is left */
SDK_FUNCTION void GuiReferenceSetRowCount(int count);
SDK_FUNCTION void GuiReferenceSetCellContent(int row, int column, const char *text);
SDK_FUNCTION void GuiReferenceSetProgress(int percent);
SDK_FUNCTION void GuiReferenceReloadData(void);
SDK_FUNCTION void GuiUpdateAllViews(void);
SDK_FUNCTION uint64_t DbgModBaseFromName(const char *name);        /* 0: not loaded */
SDK_FUNCTION uint64_t DbgGetBranchDestination(uint64_t address);   /* of the instruction there; 0: it does not branch */
SDK_FUNCTION bool DbgGetModuleAt(uint64_t address, char *name);    /* without its extension, into MAX_MODULE_SIZE */
SDK_FUNCTION bool GuiGetLineWindow(const char *title, char *text); /* into GUI_MAX_LINE_SIZE; false: cancelled */
SDK_FUNCTION bool GuiSelectionGet(GUISELECTIONTYPE window, SELECTIONDATA *selection);

/* TitanEngine.dll, which x64dbg may have loaded under that name from one of several folders: its functions are looked
 * up when they are needed. X(result, name, parameters) */
#define TITAN_FUNCTIONS(X)                                                                                             \
    X(DEBUG_EVENT *, GetDebugData, (void)) /* the last event */                                                        \
    X(void, SetNextDbgContinueStatus, (DWORD status))                                                                  \
    X(void, SetCustomHandler, (DWORD event, void (*handler)(void *))) /* called on the debug loop's thread */          \
    X(bool, IsBPXEnabled, (uint64_t address))                         /* is its int3 in the code? */                   \
    X(bool, EnableBPX, (uint64_t address))                                                                             \
    X(bool, DisableBPX, (uint64_t address))                                                                            \
    X(bool, MemoryReadSafe, (HANDLE process, uint64_t address, void *data, size_t size, size_t *done))                 \
    X(bool, MemoryWriteSafe, (HANDLE process, uint64_t address, const void *data, size_t size, size_t *done))

/* jansson.dll, of the debugger's folder. */
#define JANSSON_FUNCTIONS(X)                                                                                           \
    X(json_t *, json_object, (void))                                                                                   \
    X(json_t *, json_array, (void))                                                                                    \
    X(json_t *, json_string, (const char *text))                                                                       \
    X(json_t *, json_integer, (long long value))                                                                       \
    X(int, json_object_set_new, (json_t * object, const char *key, json_t *value)) /* owns `value` then */             \
    X(int, json_array_append_new, (json_t * array, json_t * value))                                                    \
    X(json_t *, json_object_get, (const json_t *object, const char *key))                                              \
    X(size_t, json_array_size, (const json_t *array))                                                                  \
    X(json_t *, json_array_get, (const json_t *array, size_t index))                                                   \
    X(const char *, json_string_value, (const json_t *string))                                                         \
    X(long long, json_integer_value, (const json_t *integer))

#endif
