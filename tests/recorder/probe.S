# void probe(const struct probe *in, struct probe *out, void *function, uint64_t misalign)
#
# Sets every register, flag and the whole x87, SSE, AVX and AVX-512 state from `in`, calls `function` with the stack
# moved down by `misalign` bytes, and saves all of it to `out`.
#
#   struct probe { state area: 4096 bytes, 64-aligned; registers: rax rbx rcx rdx rsi rdi rbp r8..r15; flags; mask }

    .intel_syntax noprefix
    .set REGISTERS, 4096
    .set FLAGS, REGISTERS + 15 * 8
    .set MASK, FLAGS + 8

    .data
in_area:    .quad 0
out_area:   .quad 0
function:   .quad 0
own_rsp:    .quad 0
kept_rax:   .quad 0

    .text
    .globl probe
probe:
    push rbx
    push rbp
    push rsi
    push rdi
    push r12
    push r13
    push r14
    push r15
    mov [rip + in_area], rcx
    mov [rip + out_area], rdx
    mov [rip + function], r8
    mov [rip + own_rsp], rsp
    sub rsp, 64
    sub rsp, r9
    mov r15, rcx
    mov eax, [r15 + MASK]
    xor edx, edx
    xrstor64 [r15]
    push qword ptr [r15 + FLAGS]
    .set at, REGISTERS
    .irp register, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
    mov \register, [r15 + at]
    .set at, at + 8
    .endr
    popfq
    call [rip + function]
    mov [rip + kept_rax], rax
    mov rax, [rip + out_area]
    .set at, REGISTERS
    .irp register, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
    mov [rax + at], \register
    .set at, at + 8
    .endr
    mov r15, rax
    mov rax, [rip + kept_rax]
    mov [r15 + REGISTERS], rax
    pushfq
    pop qword ptr [r15 + FLAGS]
    cld
    mov eax, [r15 + MASK]
    xor edx, edx
    xsave64 [r15]
    mov rsp, [rip + own_rsp]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    ret
