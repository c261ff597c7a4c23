# The slow path of inline event code: called, with the stack at any alignment and every register and flag live, when a
# thread's block is full or it has none. Everything is as before when it returns, but for the thread's cursor.
#
#   [rbp+16]  return address: which entry it came through
#   [rbp+8]   flags
#   [rbp+0]   rbp
#   [rbp-56]  rax, rcx, rdx, r8..r11: what C code may change (it keeps the others itself)
#   [rbp-72]  LastErrorValue and LastStatusValue of the TEB
#   aligned   area of xsave (or fxsave)
#   rsp+32    the callee's home space

    .intel_syntax noprefix

    .set LAST_ERROR, 0x68
    .set LAST_STATUS, 0x1250
    .set XSAVE_HEADER, 512

    .text
# One entry for each TLS slot that may hold the cursor. An entry is a leaf to the unwinder: it leaves the stack alone.
# What stays there below the caller's return address tells whoever looks at the stack whether that is still in use: the
# address behind the call, or zero.
    .globl ct_slow_paths
    .p2align 4
ct_slow_paths:
    .rept 64
    call ct_slow_path
    mov qword ptr [rsp - 8], 0
    ret
    .p2align 4
    .endr

    .def ct_slow_path; .scl 3; .type 32; .endef
    .p2align 4
    .seh_proc ct_slow_path
ct_slow_path:
    pushfq
    .seh_stackalloc 8
    push rbp
    .seh_pushreg rbp
    mov rbp, rsp
    .seh_setframe rbp, 0
    .seh_endprologue
    push rax
    push rcx
    push rdx
    push r8
    push r9
    push r10
    push r11
    mov eax, gs:[LAST_ERROR]
    push rax
    mov eax, gs:[LAST_STATUS]
    push rax
    cld

    mov eax, [rip + ct_xsave_size]
    sub rsp, rax
    and rsp, -64
    mov eax, [rip + ct_xsave_mask]
    xor edx, edx
    test eax, eax
    jz 1f

    # xsave leaves most of its header alone, and xrstor insists on zeros there
    .irp offset, 0, 8, 16, 24, 32, 40, 48, 56
    mov [rsp + XSAVE_HEADER + \offset], rdx
    .endr
    xsave64 [rsp]
    sub rsp, 32
    mov rcx, [rbp + 16]
    call ct_refill
    add rsp, 32
    mov eax, [rip + ct_xsave_mask]
    xor edx, edx
    xrstor64 [rsp]
    jmp 2f

1:  fxsave64 [rsp]
    sub rsp, 32
    mov rcx, [rbp + 16]
    call ct_refill
    add rsp, 32
    fxrstor64 [rsp]

2:  lea rsp, [rbp - 72]
    pop rax
    mov gs:[LAST_STATUS], eax
    pop rax
    mov gs:[LAST_ERROR], eax
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdx
    pop rcx
    pop rax
    pop rbp
    popfq
    ret
    .seh_endproc
