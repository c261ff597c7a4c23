/* The functions of first_entries.c, where they lie in aligned groups of 8 bytes. */
.file "first_entries_asm.S"
#include "assembly.inc"

.balign 16, 0xCC
FUNCTION aligned
    .byte 0x8D, 0x81, 1, 0, 0, 0 /* lea eax, [rcx + 1] */
    ret

.balign 16, 0xCC
    .skip 6, 0xCC
FUNCTION straddling
    .byte 0x8D, 0x81, 2, 0, 0, 0 /* lea eax, [rcx + 2] */
    ret

.balign 16, 0xCC
FUNCTION cramped
    mov eax, ecx /* 89 c8 */
    ret
FUNCTION behind_cramped /* room for a short jump only between them */
    lea eax, [rcx + rcx]
    ret

.balign 16, 0xCC
.rept 60 /* no padding within reach of a short jump */
    mov eax, ecx
    ret
.endr
FUNCTION hemmed_in
    mov eax, ecx /* 89 c8 */
    ret
.rept 60
    mov eax, ecx
    ret
.endr
.balign 16, 0xCC
