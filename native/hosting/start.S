/* start.py as a C string. */
    .section .rdata, "dr"
    .globl ct_start_source
ct_start_source:
    .incbin "hosting/start.py"
    .byte 0
