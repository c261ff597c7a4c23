/* What is kept with the debugger's database: see state.h. */
#include "state.h"

#include <stdio.h>
#include <string.h>

enum { MOST = 256 };

static const char section[] = "calltrace", words_key[] = "start", trace_key[] = "trace", entries_key[] = "entries",
                  module_key[] = "module", rva_key[] = "rva";

static char last_words[CT_STATE_TEXT], last_trace[CT_STATE_TEXT]; /* "": none */
static struct {
    char module[MAX_MODULE_SIZE];
    uint64_t rva;
} entries[MOST];
static int entry_count;

struct jansson {
#define MEMBER(result, name, parameters) result(*name) parameters;
    JANSSON_FUNCTIONS(MEMBER)
#undef MEMBER
};

static const struct jansson *find_jansson(void)
{
    static struct jansson jansson;
    HMODULE library = GetModuleHandleW(L"jansson.dll");
    bool found = library != NULL;
#define RESOLVE(result, name, parameters)                                                                              \
    if (found && !jansson.name)                                                                                        \
        found = (jansson.name = (void *)(uintptr_t)GetProcAddress(library, #name)) != NULL;
    JANSSON_FUNCTIONS(RESOLVE)
#undef RESOLVE
    return found ? &jansson : NULL;
}

void ct_state_recorded(const char *words, const char *trace)
{
    if (strlen(words) >= sizeof last_words || strlen(trace) >= sizeof last_trace)
        return;
    strcpy(last_words, words);
    strcpy(last_trace, trace);
}

bool ct_state_last(char *words, char *trace)
{
    strcpy(words, last_words);
    strcpy(trace, last_trace);
    return last_trace[0] != 0;
}

void state_forget_entries(void)
{
    entry_count = 0;
}

void state_add_entry(const BRIDGEBP *point)
{
    uint64_t base = point->mod[0] ? DbgModBaseFromName(point->mod) : 0;
    if (!base || entry_count == MOST)
        return;
    snprintf(entries[entry_count].module, MAX_MODULE_SIZE, "%s", point->mod);
    entries[entry_count++].rva = point->addr - base;
}

/* Whether there is such a breakpoint, and whether it is enabled. */
static bool find_point(const char *module, uint64_t rva, bool *enabled)
{
    BPMAP found = {0};
    bool there = false;
    uint64_t base = DbgModBaseFromName(module);
    DbgGetBpList(bp_normal, &found);
    for (int i = 0; i < found.count && base; i++)
        if (found.bp[i].addr == base + rva) {
            there = true;
            *enabled = found.bp[i].enabled;
        }
    if (found.count)
        BridgeFree(found.bp);
    return there;
}

static void save(CBTYPE type, void *info)
{
    (void)type;
    const struct jansson *json = find_jansson();
    json_t *root = ((PLUG_CB_LOADSAVEDB *)info)->root;
    if (!json || !root || (!last_trace[0] && !entry_count))
        return;
    json_t *ours = json->json_object(), *list = json->json_array();
    if (last_trace[0]) {
        json->json_object_set_new(ours, words_key, json->json_string(last_words));
        json->json_object_set_new(ours, trace_key, json->json_string(last_trace));
    }
    for (int i = 0; i < entry_count; i++) {
        bool enabled = false;
        if (!find_point(entries[i].module, entries[i].rva, &enabled) || !enabled)
            continue;
        json_t *entry = json->json_object();
        json->json_object_set_new(entry, module_key, json->json_string(entries[i].module));
        json->json_object_set_new(entry, rva_key, json->json_integer((long long)entries[i].rva));
        json->json_array_append_new(list, entry);
    }
    json->json_object_set_new(ours, entries_key, list);
    json->json_object_set_new(root, section, ours);
}

/* The functions answer NULL for what is not there, and take it. */
static void load(CBTYPE type, void *info)
{
    (void)type;
    const struct jansson *json = find_jansson();
    if (!json)
        return;
    const json_t *ours = json->json_object_get(((PLUG_CB_LOADSAVEDB *)info)->root, section);
    const char *words = json->json_string_value(json->json_object_get(ours, words_key));
    const char *trace = json->json_string_value(json->json_object_get(ours, trace_key));
    if (words && trace)
        ct_state_recorded(words, trace);
    const json_t *list = json->json_object_get(ours, entries_key);
    entry_count = 0;
    for (size_t i = 0; i < json->json_array_size(list) && entry_count < MOST; i++) {
        const json_t *entry = json->json_array_get(list, i);
        const char *module = json->json_string_value(json->json_object_get(entry, module_key));
        if (!module)
            continue;
        snprintf(entries[entry_count].module, MAX_MODULE_SIZE, "%s", module);
        entries[entry_count++].rva = (uint64_t)json->json_integer_value(json->json_object_get(entry, rva_key));
    }
}

/* Another target. */
static void forget(CBTYPE type, void *info)
{
    (void)type, (void)info;
    last_words[0] = last_trace[0] = 0;
    entry_count = 0;
}

/* A module was loaded, and the debugger has disabled what stood on a jump of ours. */
static void enable_entries(CBTYPE type, void *info)
{
    (void)type, (void)info;
    for (int i = 0; i < entry_count; i++) {
        bool enabled = true;
        char line[64];
        if (!find_point(entries[i].module, entries[i].rva, &enabled) || enabled)
            continue;
        uint64_t address = DbgModBaseFromName(entries[i].module) + entries[i].rva;
        snprintf(line, sizeof line, "bpe %llx", (unsigned long long)address);
        DbgCmdExecDirect(line);
    }
}

void state_register(int plugin)
{
    _plugin_registercallback(plugin, CB_INITDEBUG, forget);
    _plugin_registercallback(plugin, CB_LOADDB, load);
    _plugin_registercallback(plugin, CB_SAVEDB, save);
    _plugin_registercallback(plugin, CB_CREATEPROCESS, enable_entries);
    _plugin_registercallback(plugin, CB_LOADDLL, enable_entries);
}
