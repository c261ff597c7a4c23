/* Results in the debugger's own views: see views.h. */
#include "views.h"

#include <stdio.h>
#include <string.h>

enum {
    ADDRESS_WIDTH = 16,
    NUMBER_WIDTH = 14,
    NAME_WIDTH = 40,
    ROWS_PER_STEP = 256
}; /* characters, and rows between two steps */

static int table_rows;

bool ct_views_is_in(uint64_t address, const char *module)
{
    char name[MAX_MODULE_SIZE] = "";
    return DbgIsDebugging() && DbgGetModuleAt(address, name) && _stricmp(name, module) == 0;
}

void ct_views_annotate(uint64_t address, const char *comment, const char *label)
{
    char there[MAX_COMMENT_SIZE] = "", name[MAX_LABEL_SIZE] = "";
    if (!DbgGetCommentAt(address, there) || there[0] == '\1')
        DbgSetAutoCommentAt(address, comment);
    if (!DbgGetLabelAt(address, SEG_DEFAULT, name))
        DbgSetAutoLabelAt(address, label);
}

uint32_t ct_views_labels(struct label_info *labels, uint32_t room)
{
    /* Of a C++ name, of which there is none in x64dbg.def. */
    bool (*list_labels)(struct list_info *) =
        (void *)(uintptr_t)GetProcAddress(GetModuleHandleW(L"x64dbg.dll"), LIST_LABELS);
    struct list_info found = {0};
    if (!list_labels || !list_labels(&found))
        return 0;
    const struct label_info *all = found.data;
    uint32_t count = 0;
    for (int i = 0; i < found.count; i++) {
        if (!all[i].manual)
            continue;
        if (count < room)
            labels[count] = all[i];
        count++;
    }
    if (found.data)
        BridgeFree(found.data);
    return count;
}

void ct_views_begin_table(const char *title, const char *second_column, const char *third_column,
                          const char *last_column, int rows)
{
    GuiReferenceInitialize(title);
    GuiReferenceAddColumn(ADDRESS_WIDTH, "Address");
    GuiReferenceAddColumn(NUMBER_WIDTH, second_column);
    GuiReferenceAddColumn(NAME_WIDTH, third_column);
    GuiReferenceAddColumn(0, last_column);
    GuiReferenceSetRowCount(rows);
    table_rows = rows;
}

void ct_views_row(int row, uint64_t address, const char *second, const char *third, const char *last)
{
    char text[32];
    snprintf(text, sizeof text, "%016llX", (unsigned long long)address);
    GuiReferenceSetCellContent(row, 0, text);
    GuiReferenceSetCellContent(row, 1, second);
    GuiReferenceSetCellContent(row, 2, third);
    if (*last)
        GuiReferenceSetCellContent(row, 3, last);
    if (row % ROWS_PER_STEP == 0)
        GuiReferenceSetProgress(row * 100 / table_rows);
}

void ct_views_end_table(void)
{
    GuiReferenceSetProgress(100);
    GuiReferenceReloadData();
}

bool ct_views_command(const char *line)
{
    return DbgIsDebugging() && DbgCmdExecDirect(line);
}
