/* Functions that a compiler would not make, or not reliably. */
    .intel_syntax noprefix
    .text

    .globl tail_frame
    .def tail_frame; .scl 2; .type 32; .endef
    .seh_proc tail_frame
tail_frame:
    push rbx
    .seh_pushreg rbx
    sub rsp, 0x20
    .seh_stackalloc 0x20
    .seh_endprologue
    mov ebx, ecx
    call work_asm
    mov ecx, ebx
    add rsp, 0x20
    pop rbx
    jmp api
    .seh_endproc

    .def work_asm; .scl 3; .type 32; .endef
    .seh_proc work_asm
work_asm:
    .seh_endprologue
    ret
    .seh_endproc

/* No unwind data from here on. */
    .globl blind_frame
    .def blind_frame; .scl 2; .type 32; .endef
    .p2align 4
blind_frame:
    push rbx
    sub rsp, 0x30
    mov ebx, ecx
    test ebx, 1
    jz 1f
    add ecx, 100
1:  call api
    add rsp, 0x30
    pop rbx
    ret

    .globl blind_owner
    .def blind_owner; .scl 2; .type 32; .endef
    .p2align 4
blind_owner:
    push rsi
    push rdi
    sub rsp, 0x28
    xor esi, esi
    mov edi, ecx
2:  cmp esi, edi
    jae 3f
    mov ecx, esi
    call blind_frame
    inc esi
    jmp 2b
3:  add rsp, 0x28
    pop rdi
    pop rsi
    ret
