/* The functions of entry_loops.c: turns in ecx, the sum in edx. */
.file "entry_loops_asm.S"
#include "assembly.inc"

.balign 16
FUNCTION to_first_byte
    add edx, ecx            /* 01 ca */
    dec ecx
    jnz to_first_byte
    mov eax, edx
    ret

.balign 16
FUNCTION to_byte_1
    cld                     /* fc */
1:  add edx, ecx
    add edx, ecx
    dec ecx
    jnz 1b
    mov eax, edx
    ret

.balign 16
FUNCTION to_byte_2
    xor eax, eax            /* 31 c0 */
1:  add eax, ecx
    dec ecx
    jnz 1b
    ret

.balign 16
FUNCTION to_byte_3
    .byte 0x8D, 0x42, 0      /* lea eax, [rdx + 0] */
1:  add eax, ecx
    dec ecx
    jnz 1b
    ret

.balign 16
FUNCTION to_byte_4
    .byte 0x8D, 0x42, 0      /* lea eax, [rdx + 0] */
    cld                     /* fc */
1:  inc eax
    dec ecx
    jnz 1b
    ret

.balign 16
FUNCTION by_loop            /* loop and jrcxz, which reach 127 bytes, to the first byte */
    dec ecx
    jecxz 1f
    add edx, ecx
    inc ecx
    loop by_loop
1:  mov eax, edx
    ret

.balign 16
FUNCTION from_far           /* a jump back of 32 bits */
    add edx, ecx
    dec ecx
    jz 1f
    .skip 200, 0x90
    jmp from_far
1:  mov eax, edx
    ret

.balign 16
PROCEDURE with_call         /* to the first byte, out of its frame and through its prolog again */
    sub rsp, 40
    .seh_stackalloc 40
    .seh_endprologue
    mov [rsp + 48], rcx
    call three
    add edx, eax
    mov rcx, [rsp + 48]
    add rsp, 40
    dec ecx
    jnz with_call
    mov eax, edx
    ret
END

.balign 16
FUNCTION three
    mov eax, 3
    ret
