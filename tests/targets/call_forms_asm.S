/* The functions of call_forms.c. */
.file "call_forms_asm.S"
#include "assembly.inc"

FUNCTION first
    lea eax, [rbx + 1]
    mov ebx, eax
    ret
.balign 16
FUNCTION second
    lea eax, [rbx + 3]
    mov ebx, eax
    ret
.balign 16

PROCEDURE every_form
    push rbx
    .seh_pushreg rbx
    push rsi
    .seh_pushreg rsi
    push r12
    .seh_pushreg r12
    push r13
    .seh_pushreg r13
    sub rsp, 40
    .seh_stackalloc 40
    .seh_endprologue
    mov rsi, rcx
    xor ebx, ebx
    call first                      /* e8 rel32 */
    lea rax, first[rip]
    call rax                        /* ff d0 */
    lea rax, forms[rip]
    call [rax + 8]                  /* ff 50 08 */
    lea rax, forms[rip]
    call [rax]                      /* ff 10 */
    call forms[rip + 8]             /* ff 15 rel32 */
    lea r12, first[rip]
    call r12                        /* 41 ff d4 */
    lea r12, forms[rip]
    mov r13d, 1
    call [r12 + r13 * 8]            /* 43 ff 14 ec */
    mov rax, forms[rip]
    mov [rsp + 32], rax
    call [rsp + 32]                 /* ff 54 24 20 */
    lea rax, forms[rip - 0x1000]
    call [rax + 0x1008]             /* ff 90 disp32 */
    lea r13, forms[rip]
    call [r13]                      /* 41 ff 55 00 */
    lea rdx, second[rip]
    rex.w call rdx                  /* 48 ff d2 */
    mov rcx, rsi
    call __imp_puts[rip]
    mov rcx, rsi
    mov rdi_save[rip], rdi
    mov rdi, __imp_puts[rip]
    call rdi                        /* an import through a register */
    mov rdi, rdi_save[rip]
    mov eax, ebx
    add rsp, 40
    pop r13
    pop r12
    pop rsi
    pop rbx
    ret
END
.balign 16

FUNCTION local_thunk
    jmp forms[rip + 8]
.balign 16

PROCEDURE through_thunks
    push rbx
    .seh_pushreg rbx
    sub rsp, 48
    .seh_stackalloc 48
    .seh_endprologue
    xor ebx, ebx
    mov [rsp + 32], rcx
    call puts                       /* the linker's own thunk: jmp [__imp_puts] */
    mov rcx, [rsp + 32]
    call own_import_thunk
    call local_thunk
    lea rax, local_thunk[rip]
    call rax
    mov eax, ebx
    add rsp, 48
    pop rbx
    ret
END
.balign 16

FUNCTION own_import_thunk
    jmp __imp_puts[rip]
.balign 16

.data
.balign 8
forms:
    .quad first, second
.bss
rdi_save:
    .quad 0
