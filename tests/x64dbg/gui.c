/* x64gui.dll without a window: types the commands of a script, one after the other, and keeps the log.
 *
 *     X64DBG_SCRIPT    the file with the commands, as a user types them
 *     X64DBG_LOG       the file that gets the log, with "> COMMAND" before what each prints
 *
 * A command is over when the debugger has taken it and the target, if it ran, has stopped or is gone; after `attach`
 * and `calltrace` it may run. These are ours:
 *
 *     !click TITLE         click the menu entry of this name
 *     !click-on TEXT|TITLE click it as soon as such a text is in the log
 *     !select EXPRESSION   select an address in the disassembly
 *     !notes EXPRESSION    log the comment and the label at an address
 *     !value EXPRESSION    log what an expression is
 *     !references          log what is in the references view
 *     !callstack           log what the call stack's view shows of each frame
 *     !where               log what the debugger calls the place where the thread stands
 *     !raw EXPRESSION      log 8 bytes of the target's memory as they are
 *     !answer TEXT         what is typed when the window asks next; without one it is cancelled
 *     !asked               log what the window asked last
 *     !menus               log the menus' entries, each behind the number of the debugger's menu it is in
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

/* Of the plugin SDK: numbers of messages, and what they carry. */
enum {
    GUI_SET_DEBUG_STATE = 1,
    GUI_ADD_MSG_TO_LOG = 2,
    GUI_GET_WINDOW_HANDLE = 8,
    GUI_REF_ADDCOLUMN = 22,
    GUI_REF_SETROWCOUNT = 23,
    GUI_REF_SETCELLCONTENT = 26,
    GUI_REF_RELOADDATA = 28,
    GUI_REF_SETPROGRESS = 30,
    GUI_MENU_ADD = 39,
    GUI_MENU_ADD_ENTRY = 40,
    GUI_SELECTION_GET = 43,
    GUI_GETLINE_WINDOW = 45,
    GUI_REF_INITIALIZE = 58,
};
enum { GET_CALL_STACK = 59 }; /* of DbgFunctions: GetCallStackEx */
enum {
    STATE_PAUSED = 1,
    FIRST_MENU = 256,
    NO_ENTRY = -1,
    ENTRIES = 200,
    ROWS = 1000,
    COLUMNS = 4,
    SECONDS_TO_START = 30
};

static const char *(*dbg_init)(void);
static void (*dbg_exit)(void);
static bool (*cmd_exec)(const char *command);
static bool (*is_debugging)(void);
static bool (*is_running)(void);
static uint64_t (*value_of)(const char *expression);
static void (*menu_entry_clicked)(int entry);
static bool (*get_comment)(uint64_t address, char *text);
static bool (*get_label)(uint64_t address, int segment, char *text);
/* Of the real debugger only: */
static void **(*dbg_functions)(void);
static HANDLE (*process_handle)(void);

static FILE *log_file;
static CRITICAL_SECTION lock; /* of all below */
static bool at_line_start = true;
static char awaited[64]; /* the text with which a command says that it is over */
static HANDLE command_over;
static HANDLE target_paused; /* since `init` */
static HANDLE target_gone;   /* and the debugger is done with it */
static char click_on[4096], click_then[4096];
static char titles[ENTRIES][256]; /* of menus and their entries; their handle is FIRST_MENU + index */
static int menus[ENTRIES];        /* the debugger's that each is in, or NO_ENTRY of a menu's own title */
static int parents[ENTRIES];      /* the debugger's menu that a menu is in */
static int entries;
static uint64_t selected;
static char answer[4096], question[4096];
static bool answers; /* the next question is not cancelled */

/* The references view. */
typedef struct {
    int row, column;
    const char *text;
} cell_info;
static char view_title[256], cells[ROWS][COLUMNS][256]; /* the first row has the columns' titles */
static int columns, rows, progress;
static bool loaded;

static void fail(const char *what)
{
    fprintf(stderr, "gui: %s\n", what);
    ExitProcess(4);
}

static void *find(const char *name)
{
    return (void *)(UINT_PTR)GetProcAddress(GetModuleHandleA("x64bridge.dll"), name);
}

static void *bridge(const char *name)
{
    void *function = find(name);
    if (!function)
        fail(name);
    return function;
}

static DWORD WINAPI click(void *title)
{
    for (int i = 0; i < entries; i++)
        if (strcmp(titles[i], title) == 0) {
            menu_entry_clicked(FIRST_MENU + i);
            return 0;
        }
    fail(title);
    return 1;
}

static void write_log(const char *text, size_t size)
{
    fwrite(text, 1, size, log_file);
    if (size)
        at_line_start = text[size - 1] == '\n';
    fflush(log_file);
}

/* The debugger gathers what is to be logged, so that a text may have many lines. */
static void print(const char *text)
{
    char *over = *awaited ? strstr(text, awaited) : NULL;
    if (strstr(text, "Debugging stopped!"))
        SetEvent(target_gone);
    if (over) {
        write_log(text, (size_t)(over - text));
        text = over + strlen(awaited);
        *awaited = 0;
        SetEvent(command_over);
    }
    write_log(text, strlen(text));
    if (*click_on && strstr(text, click_on)) {
        *click_on = 0;
        CreateThread(NULL, 0, click, click_then, 0, NULL);
    }
}

__declspec(dllexport) void *_gui_sendmessage(int type, void *first, void *second)
{
    void *result = NULL;
    EnterCriticalSection(&lock);
    switch (type) {
    case GUI_ADD_MSG_TO_LOG:
        print(first);
        break;
    case GUI_SET_DEBUG_STATE:
        if ((INT_PTR)first == STATE_PAUSED && !dbg_functions) /* the real debugger tells late: see watch.c */
            SetEvent(target_paused);
        break;
    case GUI_GET_WINDOW_HANDLE:
        result = GetDesktopWindow();
        break;
    case GUI_MENU_ADD:
    case GUI_MENU_ADD_ENTRY:
        if (entries == ENTRIES)
            fail("too many menu entries");
        snprintf(titles[entries], sizeof titles[entries], "%s", (const char *)second);
        parents[entries] = (int)(INT_PTR)first;
        menus[entries] = type == GUI_MENU_ADD ? NO_ENTRY : parents[parents[entries] - FIRST_MENU];
        result = (void *)(INT_PTR)(FIRST_MENU + entries++);
        break;
    case GUI_SELECTION_GET: {
        uint64_t *range = second;
        range[0] = range[1] = selected;
        result = (void *)(INT_PTR)(selected != 0);
        break;
    }
    case GUI_REF_INITIALIZE:
        snprintf(view_title, sizeof view_title, "%s", (const char *)first);
        memset(cells, 0, sizeof cells);
        columns = rows = progress = 0;
        break;
    case GUI_REF_ADDCOLUMN:
        snprintf(cells[0][columns++], sizeof cells[0][0], "%s", (const char *)second);
        break;
    case GUI_REF_SETROWCOUNT:
        rows = (int)(INT_PTR)first;
        break;
    case GUI_REF_SETCELLCONTENT: {
        const cell_info *cell = first;
        if (cell->row >= rows || cell->column >= columns || rows >= ROWS)
            fail("no such cell");
        snprintf(cells[cell->row + 1][cell->column], sizeof cells[0][0], "%s", cell->text);
        break;
    }
    case GUI_REF_SETPROGRESS:
        progress = (int)(INT_PTR)first;
        break;
    case GUI_REF_RELOADDATA:
        loaded = true;
        break;
    case GUI_GETLINE_WINDOW:
        snprintf(question, sizeof question, "%s", (const char *)first);
        strcpy(second, answer);
        result = (void *)(INT_PTR)answers;
        answers = false;
        break;
    }
    LeaveCriticalSection(&lock);
    return result;
}

__declspec(dllexport) const char *_gui_translate_text(const char *text)
{
    return text;
}

static bool begins(const char *line, const char *with)
{
    return strncmp(line, with, strlen(with)) == 0;
}

/* Until all commands so far were taken, and what they printed is in the log. */
static void settle(void)
{
    static int number;
    char over[64];
    EnterCriticalSection(&lock);
    sprintf(awaited, "@over %d\n", ++number);
    LeaveCriticalSection(&lock);
    sprintf(over, "log \"@over %d\"", number);
    if (!cmd_exec(over) || WaitForSingleObject(command_over, INFINITE))
        fail("a command does not end");
}

static void show_notes(const char *expression)
{
    char comment[512] = "", label[256] = "";
    uint64_t address = value_of(expression);
    get_comment(address, comment);
    get_label(address, 0, label);
    EnterCriticalSection(&lock);
    fprintf(log_file, "%s|%s\n", comment[0] == '\1' ? comment + 1 : comment, label);
    LeaveCriticalSection(&lock);
}

static void show_value(const char *expression)
{
    uint64_t value = value_of(expression);
    EnterCriticalSection(&lock);
    fprintf(log_file, "%llu\n", (unsigned long long)value);
    LeaveCriticalSection(&lock);
}

/* As the call stack's view has it: who each frame is of. */
static void show_call_stack(void)
{
    struct {
        int total;
        struct {
            uint64_t address, from, to;
            char comment[512];
        } * entries;
    } stack = {0};
    void (*get_call_stack)(void *, bool cached) = (void *)dbg_functions()[GET_CALL_STACK];
    get_call_stack(&stack, false);
    EnterCriticalSection(&lock);
    for (int i = 0; i < stack.total; i++)
        fprintf(log_file, "%s\n", stack.entries[i].comment);
    LeaveCriticalSection(&lock);
}

/* What the debugger calls the place where the thread stands, with how far it is behind a name. */
static void show_where(void)
{
    struct {
        int flags;
        char module[256], label[256], rest[1024];
    } info = {.flags = 2};
    bool (*address_info)(uint64_t address, int segment, void *info) =
        (void *)(UINT_PTR)GetProcAddress(GetModuleHandleA("x64dbg.dll"), "_dbg_addrinfoget");
    uint64_t address = value_of("cip");
    if (!address_info(address, 0, &info))
        sprintf(info.label, "%016llX", (unsigned long long)address);
    EnterCriticalSection(&lock);
    fprintf(log_file, "%s\n", info.label);
    LeaveCriticalSection(&lock);
}

/* Bytes of the target's memory as they are, with the debugger's breakpoints. */
static void show_raw(const char *expression)
{
    unsigned char bytes[8] = {0};
    ReadProcessMemory(process_handle(), (void *)value_of(expression), bytes, sizeof bytes, NULL);
    EnterCriticalSection(&lock);
    for (size_t i = 0; i < sizeof bytes; i++)
        fprintf(log_file, "%02x%c", bytes[i], i + 1 < sizeof bytes ? ' ' : '\n');
    LeaveCriticalSection(&lock);
}

static void show_references(void)
{
    EnterCriticalSection(&lock);
    fprintf(log_file, "%s, %d%%%s\n", view_title, progress, loaded ? "" : ", not loaded");
    for (int row = 0; row <= rows; row++)
        for (int column = 0; column < columns; column++)
            fprintf(log_file, "%s%s", cells[row][column], column + 1 < columns ? "|" : "\n");
    LeaveCriticalSection(&lock);
}

static void show_menus(void)
{
    EnterCriticalSection(&lock);
    for (int i = 0; i < entries; i++)
        if (menus[i] != NO_ENTRY)
            fprintf(log_file, "%d %s\n", menus[i], titles[i]);
    LeaveCriticalSection(&lock);
}

static void show_question(void)
{
    EnterCriticalSection(&lock);
    fprintf(log_file, "%s\n", question);
    LeaveCriticalSection(&lock);
}

static void set_answer(const char *text)
{
    EnterCriticalSection(&lock);
    strcpy(answer, text);
    answers = true;
    LeaveCriticalSection(&lock);
}

static void run(char *line)
{
    if (begins(line, "!click-on ")) {
        char *bar = strchr(line, '|');
        *bar = 0;
        EnterCriticalSection(&lock);
        strcpy(click_then, bar + 1);
        strcpy(click_on, line + strlen("!click-on "));
        LeaveCriticalSection(&lock);
        return;
    }
    EnterCriticalSection(&lock);
    fprintf(log_file, "%s> %s\n", at_line_start ? "" : "\n", line);
    fflush(log_file);
    at_line_start = true;
    LeaveCriticalSection(&lock);
    bool starts = begins(line, "init "), had_target = is_debugging();
    ResetEvent(target_paused);
    ResetEvent(target_gone);
    if (begins(line, "!click "))
        click(line + strlen("!click "));
    else if (begins(line, "!notes "))
        show_notes(line + strlen("!notes "));
    else if (begins(line, "!value "))
        show_value(line + strlen("!value "));
    else if (begins(line, "!callstack"))
        show_call_stack();
    else if (begins(line, "!where"))
        show_where();
    else if (begins(line, "!raw "))
        show_raw(line + strlen("!raw "));
    else if (begins(line, "!references"))
        show_references();
    else if (begins(line, "!answer "))
        set_answer(line + strlen("!answer "));
    else if (begins(line, "!asked"))
        show_question();
    else if (begins(line, "!menus"))
        show_menus();
    else if (begins(line, "!select "))
        selected = value_of(line + strlen("!select "));
    else if (!cmd_exec(line))
        fail("a command was not taken");
    settle();
    if (starts && WaitForSingleObject(target_paused, SECONDS_TO_START * 1000))
        fail("no target");
    /* At a breakpoint whose condition does not hold the debugger says for a moment that the target stands still. */
    bool runs = begins(line, "run") || begins(line, "erun");
    while (runs && is_debugging() && WaitForSingleObject(target_paused, 5))
        ;
    /* Not every system breaks into a process for the one that attaches to it. */
    while (is_debugging() && is_running() && !begins(line, "attach ") && !begins(line, "calltrace "))
        Sleep(5);
    /* The real debugger has some more to say when the target is no more. */
    if (dbg_functions && (had_target || starts) && !is_debugging())
        WaitForSingleObject(target_gone, SECONDS_TO_START * 1000);
    settle();
}

static void run_script(FILE *script)
{
    char line[4096];
    while (fgets(line, sizeof line, script)) {
        line[strcspn(line, "\r\n")] = 0;
        run(line);
    }
}

__declspec(dllexport) int _gui_guiinit(int argc, char **argv)
{
    (void)argc, (void)argv;
    FILE *script = fopen(getenv("X64DBG_SCRIPT"), "rb");
    if (!script)
        fail("no script");
    const char *failure = dbg_init();
    if (failure)
        fail(failure);
    settle();
    run_script(script);
    EnterCriticalSection(&lock);
    fprintf(log_file, "%s%s\n", at_line_start ? "" : "\n", is_debugging() ? "end of script" : "no target");
    fclose(log_file);
    log_file = fopen("nul", "wb");
    LeaveCriticalSection(&lock);
    dbg_exit();
    return 0;
}

BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, void *reserved)
{
    (void)self, (void)reserved;
    if (reason != DLL_PROCESS_ATTACH)
        return TRUE;
    InitializeCriticalSection(&lock);
    command_over = CreateEventW(NULL, FALSE, FALSE, NULL);
    target_gone = CreateEventW(NULL, TRUE, FALSE, NULL);
    char name[64];
    snprintf(name, sizeof name, "x64dbg-stopped-%lu", GetCurrentProcessId());
    target_paused = CreateEventA(NULL, TRUE, FALSE, name);
    dbg_init = bridge("DbgInit");
    dbg_exit = bridge("DbgExit");
    cmd_exec = bridge("DbgCmdExec");
    is_debugging = bridge("DbgIsDebugging");
    is_running = bridge("DbgIsRunning");
    value_of = bridge("DbgValFromString");
    menu_entry_clicked = bridge("DbgMenuEntryClicked");
    get_comment = bridge("DbgGetCommentAt");
    get_label = bridge("DbgGetLabelAt");
    dbg_functions = find("DbgFunctions");
    process_handle = find("DbgGetProcessHandle");
    log_file = fopen(getenv("X64DBG_LOG"), "wb");
    if (!log_file)
        fail("no log");
    return TRUE;
}
