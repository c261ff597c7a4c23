// build: -O2 -D__USE_MINGW_ANSI_STDIO=0 call_forms_asm.S
/* Every form of call instruction: call_forms_asm.S says which stands where.
 *
 * output:
 *     direct
 *     direct
 *     21
 *     through thunks
 *     through thunks
 *     6
 * not traced: own_import_thunk -- calls through it are recorded where they are made
 * tree:
 *     main
 *         every_form
 *             first
 *             [*]
 *                 first
 *             [*]
 *                 second
 *             [*]
 *                 first
 *             [*]
 *                 second
 *             [*]
 *                 first
 *             [*]
 *                 second
 *             [*]
 *                 first
 *             [*]
 *                 second
 *             [*]
 *                 first
 *             [*]
 *                 second
 *             [puts]
 *             [*]
 *         through_thunks
 *             [puts]
 *             [puts]
 *             local_thunk  tail
 *             second
 *             [*]
 *                 local_thunk  tail
 *                 second
 */
#include <stdio.h>

unsigned every_form(const char *text);
unsigned through_thunks(const char *text);

int main(void)
{
    printf("%u\n", every_form("direct"));
    printf("%u\n", through_thunks("through thunks"));
    return 0;
}
