/* The functions of tail_calls.c. */
.file "tail_calls_asm.S"
#include "assembly.inc"

.balign 16
FUNCTION one
    mov eax, 1
    ret

.balign 16
FUNCTION short_jump
    nop
    .byte 0xEB, one - 1f        /* the assembler would take 32 bits for a symbol that it knows as global */
1:

.balign 16
FUNCTION direct
    .byte 0xE9                  /* jmp rel32 */
    .long one - 1f
1:

.balign 16
FUNCTION through_memory
    jmp pointer[rip]

.balign 16
FUNCTION through_register
    lea rax, one[rip]
    jmp rax

.balign 16
FUNCTION through_table
    lea rdx, pointer[rip - 8]
    movsxd rcx, ecx
    jmp [rdx + rcx * 8]

.balign 16
FUNCTION conditional            /* out of the function or not */
    xor eax, eax
    test ecx, ecx
    .byte 0x0F, 0x85            /* jnz rel32 */
    .long one - 1f
1:  ret

.balign 16
FUNCTION over_two
    nop dword ptr [rax]
    jmp direct

.balign 16
PROCEDURE adds
    sub rsp, 40
    .seh_stackalloc 40
    .seh_endprologue
    mov [rsp + 32], rcx
    call one
    add eax, [rsp + 32]
    add rsp, 40
    ret
END

.balign 16
PROCEDURE with_frame            /* a frame that is gone before the jump */
    push rbx
    .seh_pushreg rbx
    sub rsp, 32
    .seh_stackalloc 32
    .seh_endprologue
    mov ebx, ecx
    neg ebx
    mov ecx, ebx
    add rsp, 32
    pop rbx
    jmp adds
END

.balign 16
FUNCTION to_import
    jmp __imp_abs[rip]

.balign 16
FUNCTION ping
    test ecx, ecx
    jz stack_pointer
    dec ecx
    jmp pong

.balign 16
FUNCTION pong
    dec ecx
    jmp ping

.balign 16
FUNCTION stack_pointer
    mov rax, rsp
    ret

.data
.balign 8
pointer:
    .quad one
