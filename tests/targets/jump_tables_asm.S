/* The functions of jump_tables.c: which in ecx; cases return 100 and up. */
.file "jump_tables_asm.S"
#include "assembly.inc"

.macro CASES
10: mov eax, 100
    ret
11: mov eax, 101
    ret
12: mov eax, 102
    ret
13: mov eax, 103
    ret
.endm

.balign 16
/* 64-bit addresses in .rdata. It has unwind data, which say where it ends: without, nothing would tell its cases from
 * functions that a table of pointers names, such as those of to_functions. */
PROCEDURE absolute_table
    .seh_endprologue
    mov ecx, ecx
    lea rdx, 20f[rip]
    jmp [rdx + rcx * 8]
    CASES
END
.section .rdata
.balign 8
20: .quad 10b, 11b, 12b, 13b
.text

.balign 16
FUNCTION image_relative_table   /* as MSVC has it: 32-bit RVAs in .rdata */
    mov eax, ecx
    lea rdx, __image_base__[rip]
    .byte 0x8B, 0x8C, 0x82      /* mov ecx, [rdx + rax * 4 + 20f], whose RVA the assembler takes only as data */
    .rva 20f
    add rcx, rdx
    jmp rcx
    CASES
.section .rdata
.balign 4
20: .rva 10b, 11b, 12b, 13b
.text

.balign 16
FUNCTION table_inside           /* the table lies in the code, between the jump and its targets */
    mov ecx, ecx
    lea rdx, 20f[rip]
    movsxd rax, dword ptr [rdx + rcx * 4]
    add rax, rdx
    jmp rax
.balign 4, 0xCC
20: .long 10f - 20b, 11f - 20b, 12f - 20b, 13f - 20b
    CASES

.balign 16
FUNCTION byte_table             /* one byte a case, in the code behind the function's last instruction */
    mov ecx, ecx
    lea rdx, 20f[rip]
    movzx eax, byte ptr [rdx + rcx]
    lea rdx, 10f[rip]
    add rax, rdx
    jmp rax
    CASES
20: .byte 0, 11b - 10b, 12b - 10b, 13b - 10b

.balign 16
FUNCTION two
    mov eax, 2
    ret
.balign 16
FUNCTION three
    mov eax, 3
    ret

.balign 16
FUNCTION to_functions           /* the table names other functions: a tail call */
    and ecx, 1
    lea rdx, 20f[rip]
    jmp [rdx + rcx * 8]
.section .rdata
.balign 8
20: .quad two, three
.text
