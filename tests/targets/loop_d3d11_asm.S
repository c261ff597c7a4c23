/* A frame function that ends in a jump, whatever the compiler thinks of it. */
    .intel_syntax noprefix
    .text
    .globl tail_frame
    .def tail_frame; .scl 2; .type 32; .endef
    .seh_proc tail_frame
tail_frame:
    sub rsp, 0x28
    .seh_stackalloc 0x28
    .seh_endprologue
    call draw_all
    add rsp, 0x28
    jmp end_frame
    .seh_endproc
