/* Results in the debugger's own views, exported by the plugin for ctypes. Text is UTF-8. */
#ifndef CALLTRACE_X64DBG_VIEWS_H
#define CALLTRACE_X64DBG_VIEWS_H

#include "plugin.h"

/* Whether a module of that name, without its extension, is loaded where the address is. */
CT_EXPORT bool ct_views_is_in(uint64_t address, const char *module);

/* Give a function a comment, and a label if it has no name; what its user wrote stays. */
CT_EXPORT void ct_views_annotate(uint64_t address, const char *comment, const char *label);

/* The labels that the user has set, the first `room` of them; how many there are. */
CT_EXPORT uint32_t ct_views_labels(struct label_info *labels, uint32_t room);

/* Fill the references view: begin, each row of it, end. The first column is an address, which leads to the code; the
 * last may be empty. */
CT_EXPORT void ct_views_begin_table(const char *title, const char *second_column, const char *third_column,
                                    const char *last_column, int rows);
CT_EXPORT void ct_views_row(int row, uint64_t address, const char *second, const char *third, const char *last);
CT_EXPORT void ct_views_end_table(void);

/* Run one of the debugger's commands at once; whether it succeeded. */
CT_EXPORT bool ct_views_command(const char *line);

#endif
