/* The functions of own_code.c that C cannot say. */
.file "own_code_asm.S"
#include "assembly.inc"

.balign 16
PROCEDURE calls_next            /* the address of the instruction behind the call: is it that of the label there? */
    .seh_endprologue
    call 1f
1:  pop rax
    lea rcx, 1b[rip]
    cmp rax, rcx
    sete al
    movzx eax, al
    ret
END

.balign 16
PROCEDURE calls_over_data       /* the return address points to data */
    .seh_endprologue
    call 1f
    .long 0xAABBCCDD
1:  pop rax
    mov eax, [rax]
    ret
END

.balign 16
FUNCTION read_table             /* data in the code, behind the ret */
    mov ecx, ecx
    lea rdx, 1f[rip]
    movzx eax, byte ptr [rdx + rcx]
    ret
1:  .byte 3, 1, 4, 1
