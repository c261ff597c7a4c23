/* Functions whose frames no unwind codes describe, in the style of OpenSSL's assembly: a handler of theirs finds out how
 * much of the frame was built by comparing RIP with labels that stand in its data, restores the caller's registers, and
 * lets the search go on. The first instructions come before what the unwind data covers: that has names of its own. */
.file "seh_labels_asm.S"
#include "assembly.inc"

/* CONTEXT */
.set CONTEXT_RAX, 0x78
.set CONTEXT_RBX, 0x90
.set CONTEXT_RSP, 0x98
.set CONTEXT_RBP, 0xA0
.set CONTEXT_RSI, 0xA8
.set CONTEXT_RDI, 0xB0
.set CONTEXT_R12, 0xD8
.set CONTEXT_RIP, 0xF8
.set CONTEXT_QWORDS, 0x4D0 / 8
/* DISPATCHER_CONTEXT */
.set CONTROL_PC, 0
.set IMAGE_BASE, 8
.set FUNCTION_ENTRY, 0x10
.set ESTABLISHER_FRAME, 0x18
.set CONTEXT_RECORD, 0x28
.set HANDLER_DATA, 0x38

.macro BEGIN name
FUNCTION \name
    mov [rsp + 8], rdi
    mov [rsp + 16], rsi
    mov rax, rsp
FUNCTION \name\()_covered
.endm

.macro UNWIND_DATA name, handler, data:vararg
.L\name\()_end:
.section .pdata, "r"
    .balign 4
    .rva \name\()_covered, .L\name\()_end, .L\name\()_unwind
.section .xdata, "r"
    .balign 8
.L\name\()_unwind:
    .byte 9, 0, 0, 0 /* version 1, UNW_FLAG_EHANDLER, no prolog, no codes */
    .rva \handler, .L\name\()_body, .L\name\()_epilogue
    .long \data
.text
.endm

/* Reads where rcx points in its prolog, rdx in its body, and r9 in its epilogue; returns the sum with r8. */
BEGIN mixes
    mov rdi, rcx
    mov rsi, rdx
    push rbx
    push rbp
    push r12
    add r8, [rdi]
    sub rsp, 32
.Lmixes_body:
    mov rbx, 11
    mov rbp, 12
    mov r12, 13
    mov rdi, 14
    add r8, [rsi]
    mov rsi, 15
    lea rax, [rsp + 32]
    mov r12, [rax]
    mov rbp, [rax + 8]
    mov rbx, [rax + 16]
    lea rsp, [rax + 24]
.Lmixes_epilogue:
    mov rdi, [rsp + 8]
    mov rsi, [rsp + 16]
    add r8, [r9]
    mov rax, r8
    ret
UNWIND_DATA mixes, fixed_frame_handler, 0

/* The same with the size of its frame in the handler's data. */
BEGIN adds
    mov rdi, rcx
    mov rsi, rdx
    push rbx
    push rbp
    push r12
    add r8, [rdi]
    sub rsp, 0x100
.Ladds_body:
    mov rdi, 16
    xor ebx, ebx
    xor ebp, ebp
    xor r12d, r12d
.Ladds_next:
    add rbx, [rsi]
    dec rdi
    jnz .Ladds_next
    add r8, rbx
    lea rax, [rsp + 0x100]
    mov r12, [rax]
    mov rbp, [rax + 8]
    mov rbx, [rax + 16]
    lea rsp, [rax + 24]
.Ladds_epilogue:
    mov rdi, [rsp + 8]
    mov rsi, [rsp + 16]
    add r8, [r9]
    mov rax, r8
    ret
UNWIND_DATA adds, sized_frame_handler, 0x100

.macro COMPARE_RIP known
    push rsi
    push rdi
    push rbx
    pushfq
    sub rsp, 0x48
    mov rax, [r8 + CONTEXT_RAX] /* before the body: RSP as the function was entered */
    mov rbx, [r8 + CONTEXT_RIP]
    mov rsi, [r9 + IMAGE_BASE]
    mov r11, [r9 + HANDLER_DATA]
    mov r10d, [r11]
    lea r10, [rsi + r10]
    cmp rbx, r10
    jb \known
    mov rax, [r8 + CONTEXT_RSP]
    mov r10d, [r11 + 4]
    lea r10, [rsi + r10]
    cmp rbx, r10
    jae \known
.endm

FUNCTION sized_frame_handler
    COMPARE_RIP .Lframe_known
    mov r10d, [r11 + 8]
    lea rax, [rax + r10 + 24]
    jmp .Lframe_built

FUNCTION fixed_frame_handler
    COMPARE_RIP .Lframe_known
    lea rax, [rax + 32 + 24]
.Lframe_built:
    mov rbx, [rax - 8]
    mov [r8 + CONTEXT_RBX], rbx
    mov rbx, [rax - 16]
    mov [r8 + CONTEXT_RBP], rbx
    mov rbx, [rax - 24]
    mov [r8 + CONTEXT_R12], rbx
.Lframe_known:
    mov rbx, [rax + 8]
    mov [r8 + CONTEXT_RDI], rbx
    mov rbx, [rax + 16]
    mov [r8 + CONTEXT_RSI], rbx
    mov [r8 + CONTEXT_RSP], rax
    mov rdi, [r9 + CONTEXT_RECORD]
    mov rsi, r8
    mov ecx, CONTEXT_QWORDS
    cld
    rep movsq
    mov rsi, r9
    xor ecx, ecx
    mov rdx, [rsi + IMAGE_BASE]
    mov r8, [rsi + CONTROL_PC]
    mov r9, [rsi + FUNCTION_ENTRY]
    mov r10, [rsi + CONTEXT_RECORD]
    mov [rsp + 0x20], r10
    lea r11, [rsi + HANDLER_DATA]
    mov [rsp + 0x28], r11
    lea r12, [rsi + ESTABLISHER_FRAME]
    mov [rsp + 0x30], r12
    mov [rsp + 0x38], rcx
    call RtlVirtualUnwind
    mov eax, 1 /* ExceptionContinueSearch */
    add rsp, 0x48
    popfq
    pop rbx
    pop rdi
    pop rsi
    ret

/* Calls *rcx with rdx, r8, 1000 and r9, and writes down the registers that it has behind. */
PROCEDURE guarded
    .seh_handler __C_specific_handler, @except
    push rbx
    .seh_pushreg rbx
    push rbp
    .seh_pushreg rbp
    push rsi
    .seh_pushreg rsi
    push rdi
    .seh_pushreg rdi
    push r12
    .seh_pushreg r12
    sub rsp, 0x20
    .seh_stackalloc 0x20
    .seh_endprologue
    mov rax, rcx
    mov rcx, rdx
    mov rdx, r8
    mov r8d, 1000
    mov ebx, 1
    mov ebp, 2
    mov esi, 3
    mov edi, 4
    mov r12d, 5
.Lguarded_try:
    call rax
    nop /* the call returns inside the scope */
.Lguarded_end:
    mov found[rip + 8 * 0], rbx
    mov found[rip + 8 * 1], rbp
    mov found[rip + 8 * 2], rsi
    mov found[rip + 8 * 3], rdi
    mov found[rip + 8 * 4], r12
    add rsp, 0x20
    pop r12
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    ret
    .seh_handlerdata
    .long 1
    .rva .Lguarded_try, .Lguarded_end
    .rva leave_callee, .Lguarded_end
    .text
END

.bss
.globl found
found: .space 40
