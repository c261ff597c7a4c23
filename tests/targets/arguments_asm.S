/* Vectors of four doubles: in one ymm register each, or, without AVX, in two xmm registers. */
.file "arguments_asm.S"
#include "assembly.inc"

.balign 16
PROCEDURE wide_sum              /* rcx result, rdx vectors, r8d: is there AVX? */
    sub rsp, 0xF8
    .seh_stackalloc 0xF8
    .irp n, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movaps [rsp + 0x10 * (\n - 2)], xmm\n
    .seh_savexmm xmm\n, 0x10 * (\n - 2)
    .endr
    .seh_endprologue
    mov [rsp + 0x20], rcx
    mov [rsp + 0x28], r8d
    test r8d, r8d
    jz 1f
    .irp n, 0, 1, 2, 3, 4, 5
    vmovupd ymm\n, [rdx + 32 * \n]
    .endr
    call add_six
    mov rcx, [rsp + 0x20]
    vmovupd [rcx], ymm0
    vzeroupper
    jmp 2f
1:  .irp n, 0, 1, 2, 3, 4, 5
    movupd xmm\n, [rdx + 32 * \n]
    movupd xmm1\n, [rdx + 32 * \n + 16]
    .endr
    call add_six
    mov rcx, [rsp + 0x20]
    movupd [rcx], xmm0
    movupd [rcx + 16], xmm10
2:  .irp n, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movaps xmm\n, [rsp + 0x10 * (\n - 2)]
    .endr
    add rsp, 0xF8
    ret
END

.balign 16
FUNCTION add_six                /* r8d: is there AVX? */
    test r8d, r8d
    jz 1f
    .irp n, 1, 2, 3, 4, 5
    vaddpd ymm0, ymm0, ymm\n
    .endr
    ret
1:  .irp n, 1, 2, 3, 4, 5
    addpd xmm0, xmm\n
    addpd xmm10, xmm1\n
    .endr
    ret
