/* The functions of short_leaves.c. Not one byte lies between them. */
.file "short_leaves_asm.S"
#include "assembly.inc"

.balign 16
FUNCTION only_ret           /* c3 */
    ret
FUNCTION rep_ret            /* f3 c3 */
    rep ret
FUNCTION zero               /* 31 c0 c3 */
    xor eax, eax
    ret
FUNCTION short_jump         /* eb 00 */
    .byte 0xEB, 0
FUNCTION plus_one           /* 8d 41 01 c3 */
    lea eax, [rcx + 1]
    ret
FUNCTION last_jump          /* eb 00 */
    .byte 0xEB, 0
FUNCTION plus_two           /* 8d 41 02 c3 */
    lea eax, [rcx + 2]
    ret
FUNCTION pointed_at         /* 6a 2a 58 c3 */
    push 42
    pop rax
    ret
FUNCTION pointed_at_too     /* 6a 2b 58 c3 */
    push 43
    pop rax
    ret
FUNCTION swap               /* 89 c8 0f c8 c3: just as long as a jump */
    mov eax, ecx
    bswap eax
    ret

.data
.globl pointers
.balign 8
pointers:
    .quad pointed_at, pointed_at_too
