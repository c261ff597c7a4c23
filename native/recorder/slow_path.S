# The slow path of inline event code: called, with the stack at any alignment and every register and flag live, when a
# thread's block is full or it has none. Everything is as before when it returns, but for the thread's cursor.
#
# A thread that has nearly used up its stack must not overflow it here, where the target's own code would not have: it
# gets a reserve stack for the time being, if one is free.
#
#   [rbp+24]  return address of that entry: which event
#   [rbp+16]  return address: which entry it came through
#   [rbp+8]   flags
#   [rbp+0]   rbp
#   [rbp-16]  rax, rcx
#   -- from here on perhaps on a reserve stack --
#   block     rdx, r8..r11: what C code may change (it keeps the others itself); LastErrorValue and LastStatusValue of
#             the TEB; number of the reserve stack, or RESERVES
#   aligned   area of xsave (or fxsave)
#   rsp+32    address of the block
#   rsp       the callee's home space

    .intel_syntax noprefix

    .set STACK_BASE, 0x08
    .set LAST_ERROR, 0x68
    .set LAST_STATUS, 0x1250
    .set STACK_END, 0x1478 # DeallocationStack
    .set XSAVE_HEADER, 512

    # What a stack must have left. Less than 8 KB are used here; the last pages of every stack are guard pages.
    .set ENOUGH, 0x8000
    .set RESERVES, 8
    .set RESERVE_SIZE, 0x8000 # session.h: CT_RESERVE_STACKS

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
    cld

    mov ecx, RESERVES
    cmp rsp, gs:[STACK_BASE]
    jae 3f # a stack that the system does not know
    mov rax, rsp
    sub rax, gs:[STACK_END]
    jb 3f
    cmp rax, ENOUGH
    jae 3f
1:  dec ecx
    js 2f
    lea rax, [rip + reserve_in_use]
    add rax, rcx
    cmp byte ptr [rax], 0
    jne 1b
    push rdx
    mov dl, 1
    xchg [rax], dl
    test dl, dl
    pop rdx
    jne 1b
    lea eax, [rcx + 1]
    imul eax, eax, RESERVE_SIZE
    add rax, [rip + ct_reserve_stacks]
    mov rsp, rax
    jmp 3f
2:  mov ecx, RESERVES

3:  push rdx
    push r8
    push r9
    push r10
    push r11
    mov eax, gs:[LAST_ERROR]
    push rax
    mov eax, gs:[LAST_STATUS]
    push rax
    push rcx
    mov rcx, rsp

    mov eax, [rip + ct_xsave_size]
    sub rsp, rax
    and rsp, -64
    mov eax, [rip + ct_xsave_mask]
    xor edx, edx
    test eax, eax
    jz 4f

    # xsave leaves most of its header alone, and xrstor insists on zeros there
    .irp offset, 0, 8, 16, 24, 32, 40, 48, 56
    mov [rsp + XSAVE_HEADER + \offset], rdx
    .endr
    xsave64 [rsp]
    sub rsp, 64
    mov [rsp + 32], rcx
    mov rcx, [rbp + 16]
    mov rdx, [rbp + 24]
    call ct_refill
    mov eax, [rip + ct_xsave_mask]
    xor edx, edx
    xrstor64 [rsp + 64]
    jmp 5f

4:  fxsave64 [rsp]
    sub rsp, 64
    mov [rsp + 32], rcx
    mov rcx, [rbp + 16]
    mov rdx, [rbp + 24]
    call ct_refill
    fxrstor64 [rsp + 64]

5:  mov rsp, [rsp + 32]
    pop rcx
    pop rax
    mov gs:[LAST_STATUS], eax
    pop rax
    mov gs:[LAST_ERROR], eax
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdx
    lea rsp, [rbp - 16]
    cmp ecx, RESERVES
    je 6f
    lea rax, [rip + reserve_in_use]
    mov byte ptr [rax + rcx], 0
6:  pop rcx
    pop rax
    pop rbp
    popfq
    ret
    .seh_endproc

    .bss
reserve_in_use: # one byte each; that of a thread killed in here stays set
    .skip RESERVES
