/* For targets in assembly: Intel syntax, and functions that the symbol table knows as such. */
.intel_syntax noprefix
    .text

    /* A function without unwind data: only a leaf can be one. */
    .macro FUNCTION name.globl \name.def \name;
.scl 2;
.type 32;
.endef
\name :.endm

            /* A function with a .pdata entry; it ends at the next END. */
            .macro PROCEDURE name.globl \name.def \name;
.scl 2;
.type 32;
.endef.seh_proc \name
\name :.endm

            .macro END.seh_endproc.endm
