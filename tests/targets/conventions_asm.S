/* The functions of conventions.c. */
.file "conventions_asm.S"
#include "assembly.inc"

/* What every register but rsp is given, and what is found in it after the calls. */
.set GPRS, 15
.set VECTOR, 32

.macro EACH_GPR what, base
    \what \base, 0, rax
    \what \base, 1, rcx
    \what \base, 2, rdx
    \what \base, 3, rbx
    \what \base, 4, rbp
    \what \base, 5, rsi
    \what \base, 6, rdi
    \what \base, 7, r8
    \what \base, 8, r9
    \what \base, 9, r10
    \what \base, 10, r11
    \what \base, 11, r12
    \what \base, 12, r13
    \what \base, 13, r14
    \what \base, 14, r15
.endm

.macro LOAD base, index, register
    mov \register, \base[rip + 8 * \index]
.endm

.macro STORE base, index, register
    mov \base[rip + 8 * \index], \register
.endm

/* Is the memory at two places the same? Adds 1 to `wrong` if not. */
.macro SAME one, other, bytes
    lea rsi, \one[rip]
    lea rdi, \other[rip]
    mov ecx, \bytes
    repe cmpsb
    setne al
    movzx eax, al
    add wrong[rip], eax
.endm

.macro SAVE_ALL
    push rbp
    .seh_pushreg rbp
    push rbx
    .seh_pushreg rbx
    push rsi
    .seh_pushreg rsi
    push rdi
    .seh_pushreg rdi
    push r12
    .seh_pushreg r12
    push r13
    .seh_pushreg r13
    push r14
    .seh_pushreg r14
    push r15
    .seh_pushreg r15
    sub rsp, 0xE8
    .seh_stackalloc 0xE8
    .irp n, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movaps [rsp + 0x10 * (\n - 4)], xmm\n
    .seh_savexmm xmm\n, 0x10 * (\n - 4)
    .endr
    .seh_endprologue
.endm

.macro RESTORE_ALL
    .irp n, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movaps xmm\n, [rsp + 0x10 * (\n - 4)]
    .endr
    add rsp, 0xE8
    pop r15
    pop r14
    pop r13
    pop r12
    pop rdi
    pop rsi
    pop rbx
    pop rbp
.endm

.balign 16
PROCEDURE check_state
    SAVE_ALL
    mov turns[rip], ecx
    mov dword ptr wrong[rip], 0
    stmxcsr [rsp + 0xC0]
    fnstcw [rsp + 0xC4]
10: fninit
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7
    fld tbyte ptr reals[rip + 10 * \n]
    .endr
    fldcw word ptr control[rip]
    ldmxcsr mxcsr[rip]
    mov eax, turns[rip]         /* every other turn with no flag set, else with all of them */
    and eax, 1
    lea rcx, flags[rip]
    mov rax, [rcx + rax * 8]
    mov flags_given[rip], rax
    push rax
    popfq
    EACH_GPR LOAD, given
    call untouched
    call single_ret
    call pointer[rip]
    EACH_GPR STORE, found
    pushfq
    pop qword ptr flags_found[rip]
    cld
    stmxcsr mxcsr_found[rip]
    fnstcw word ptr control_found[rip]
    .irp n, 7, 6, 5, 4, 3, 2, 1, 0
    fstp tbyte ptr reals_found[rip + 10 * \n]
    .endr
    SAME given, found, 8*GPRS
    SAME flags_given, flags_found, 8
    SAME reals, reals_found, 80
    SAME control, control_found, 2
    SAME mxcsr, mxcsr_found, 4
    dec dword ptr turns[rip]
    jnz 10b
    ldmxcsr [rsp + 0xC0]
    fninit
    fldcw [rsp + 0xC4]
    mov eax, wrong[rip]
    RESTORE_ALL
    ret
END

.balign 16
PROCEDURE check_vectors         /* ecx turns; edx: are there ymm registers? */
    SAVE_ALL
    mov turns[rip], ecx
    mov dword ptr wrong[rip], 0
    mov avx[rip], edx
10: test dword ptr avx[rip], 1
    jz 11f
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vmovdqu ymm\n, vectors[rip + VECTOR * \n]
    .endr
    jmp 12f
11: .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movdqu xmm\n, vectors[rip + VECTOR * \n]
    .endr
12: call untouched
    call single_ret
    call pointer[rip]
    test dword ptr avx[rip], 1
    jz 13f
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vmovdqu vectors_found[rip + VECTOR * \n], ymm\n
    .endr
    SAME vectors, vectors_found, VECTOR*16
    jmp 14f
13: .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movdqu vectors_found[rip + VECTOR * \n], xmm\n
    SAME vectors+VECTOR*\n, vectors_found+VECTOR*\n, 16
    .endr
14: dec dword ptr turns[rip]
    jnz 10b
    test dword ptr avx[rip], 1
    jz 15f
    vzeroupper
15: mov eax, wrong[rip]
    RESTORE_ALL
    ret
END

.balign 16
FUNCTION untouched
    .skip 5, 0x90
    ret

.balign 16
FUNCTION single_ret
    ret

.balign 16
FUNCTION carry_if               /* is given its argument in r9, and answers in a flag */
    neg r9
    ret

.balign 16
PROCEDURE carry_of
    sub rsp, 40
    .seh_stackalloc 40
    .seh_endprologue
    movsxd r9, ecx
    mov rdx, rsp                /* lives in a register that any callee may use */
    xor eax, eax
    call carry_if
    jnc 1f
    inc eax
1:  cmp rdx, rsp
    jne 2f
    add rsp, 40
    ret
2:  ud2
END

.balign 16
FUNCTION compare_both
    cmp ecx, edx
    ret

.balign 16
FUNCTION zero_if
    xor edx, edx
    jmp compare_both

.balign 16
PROCEDURE zero_of
    sub rsp, 40
    .seh_stackalloc 40
    .seh_endprologue
    call zero_if
    sete al
    movzx eax, al
    add rsp, 40
    ret
END

.balign 16
FUNCTION count_down             /* the caller loops on its flags */
    dec ecx
    ret

.balign 16
PROCEDURE sum_in_flags
    sub rsp, 40
    .seh_stackalloc 40
    .seh_endprologue
    xor eax, eax
1:  add eax, ecx
    call count_down
    jns 1b
    add rsp, 40
    ret
END

.section .rdata
.balign 32
given:
    .set n, 1
    .rept GPRS
    .quad 0x0101010101010101 * n
    .set n, n + 1
    .endr
flags:
    .quad 0x202, 0xED7          /* carry, parity, adjust, zero, sign, direction, overflow */
pointer:
    .quad untouched
reals:
    .irp n, 1, 2, 3, 4, 5, 6, 7, 8
    .quad 0x8000000000000001 + \n
    .short 0x4000 + \n
    .endr
mxcsr:
    .long 0xFFA0                /* all masked, rounds to zero, flushes to zero, precision flag */
control:
    .short 0x0F7F               /* all masked, rounds to zero, 80 bits */
.balign 32
vectors:
    .set n, 1
    .rept VECTOR * 16
    .byte n & 0xFF
    .set n, n * 5 + 1
    .endr

.bss
.balign 32
found:
    .skip 8 * GPRS
flags_given:
    .quad 0
flags_found:
    .quad 0
reals_found:
    .skip 80
mxcsr_found:
    .long 0
control_found:
    .long 0
turns:
    .long 0
wrong:
    .long 0
avx:
    .long 0
.balign 32
vectors_found:
    .skip VECTOR * 16
