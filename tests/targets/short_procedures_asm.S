/* The functions of short_procedures.c. Not one byte lies between them. */
.file "short_procedures_asm.S"
#include "assembly.inc"

.balign 16
PROCEDURE only_ret
    .seh_endprologue
    ret
END
PROCEDURE rep_ret
    .seh_endprologue
    rep ret
END
PROCEDURE zero
    .seh_endprologue
    xor eax, eax
    ret
END
PROCEDURE short_jump
    .seh_endprologue
    .byte 0xEB, 0
END
PROCEDURE plus_one
    .seh_endprologue
    lea eax, [rcx + 1]
    ret
END
PROCEDURE calls_two         /* its first instruction has 4 bytes, and a call follows */
    sub rsp, 40
    .seh_stackalloc 40
    .seh_endprologue
    call plus_one
    mov [rsp + 32], eax
    call only_ret
    mov eax, [rsp + 32]
    add rsp, 40
    ret
END
PROCEDURE saves             /* a 1-byte and a 2-byte push, then a call within the first five bytes */
    push rbx
    .seh_pushreg rbx
    .seh_endprologue
    mov ebx, ecx
    call zero
    add eax, ebx
    pop rbx
    ret
END
PROCEDURE chosen            /* a conditional jump within the first five bytes */
    .seh_endprologue
    test ecx, ecx
    jz 1f
    mov eax, ecx
1:  ret
END
