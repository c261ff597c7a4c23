/* Copies of functions as the debugger shows them: its call stack passes through them, and names are the originals'.
 *
 * The debugger finds unwind data by its list of modules, in which copies are not. Each region of copies begins with the
 * headers of an image, whose exception directory has theirs.
 */
#ifndef CALLTRACE_X64DBG_COPIES_H
#define CALLTRACE_X64DBG_COPIES_H

#include "plugin.h"

/* Where copies lie: VA, bytes. */
struct ct_region {
    uint64_t base, size;
};

/* The VA of the original instruction that the code at an address in a region does the work of; 0: none. On any
 * thread. */
typedef uint64_t ct_find_original(uint64_t address);

/* From now on these, and no others, are the copies in the process (a handle, which stays open until then or until the
 * target is gone). False if the debugger's walk cannot be reached: it ends at copies then. */
CT_EXPORT bool ct_copies_show(HANDLE process, const struct ct_region *regions, uint32_t count, ct_find_original *find);

/* The original of an address in a copy, or the address itself. */
uint64_t copies_original(uint64_t address);

/* The target is gone. */
void copies_forget(void);

/* When the plugin is loaded, for the first time or again: registers for the debugger's questions about addresses. */
void copies_begin(int plugin);

#endif
