/* The functions of breakpoints.c, and names for places in them. */
.file "breakpoints_asm.S"
#include "assembly.inc"

.macro PLACE name
.globl \name
\name:
.endm

.balign 16
PROCEDURE straight
    sub rsp, 40             /* 48 83 ec 28 */
    .seh_stackalloc 40
    .seh_endprologue
PLACE straight_fifth
    mov eax, ecx
PLACE straight_turn
    add eax, 1
    dec ecx
    jnz straight_turn
    mov [rip + written], eax
PLACE straight_call
    call callee
PLACE straight_back
    mov eax, 1
    add rsp, 40
PLACE straight_ret
    ret
END

.balign 16
FUNCTION turns
    add edx, ecx
    dec ecx
    jnz turns
PLACE turns_end
    mov eax, edx
    ret

/* Three bytes, and no room behind them: its entry becomes a short jump into the padding behind the next one. */
.balign 16
FUNCTION short_one
    xor eax, eax
PLACE short_ret
    ret
FUNCTION next_to_it
    lea eax, [rcx + 1]      /* 8d 41 01 */
PLACE next_ret
    ret
PLACE padding
.fill 25, 1, 0xCC

.balign 16
PROCEDURE serve
    push rbx
    .seh_pushreg rbx
    sub rsp, 32
    .seh_stackalloc 32
    .seh_endprologue
    mov rbx, rcx
serve_again:
    mov rcx, rbx
    call wait_turn
PLACE serve_turn
    test eax, eax
    jnz serve_again
    add rsp, 32
    pop rbx
    ret
END

/* For debuggers, which know no other symbols of ours. */
.section .drectve, "yn"
.ascii " -export:straight -export:turns -export:serve"
