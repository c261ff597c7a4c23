/* Exception data: UNWIND_INFO and what the language handlers of MSVC, clang and gcc keep behind it.
 *
 * Sources: Microsoft, "x64 exception handling"; the FuncInfo structures of ehdata.h and the compressed ones of
 * ehdata4_export.h in the Visual C++ runtime's sources; the Itanium C++ ABI's LSDA as gcc writes it for SEH targets.
 */
#ifndef CALLTRACE_EH_H
#define CALLTRACE_EH_H

#include "../include/trace_format.h"
#include "image.h"

enum {
    CT_UNW_EHANDLER = 1,
    CT_UNW_UHANDLER = 2,
    CT_UNW_CHAININFO = 4,
};

/* UNWIND_INFO, versions 1 and 2. */
struct ct_unwind {
    uint8_t version, flags, prolog, code_count;
    uint8_t frame; /* frame register and scaled offset, as stored */
    uint32_t rva;
    uint32_t codes;    /* RVA of the code array */
    uint32_t handler;  /* RVA; with EHANDLER or UHANDLER */
    uint32_t data;     /* RVA of the handler's data */
    uint32_t chain[3]; /* the RUNTIME_FUNCTION chained to; with CHAININFO */
};

enum ct_handler {
    CT_HANDLER_NONE,
    CT_HANDLER_SCOPE,  /* __C_specific_handler and its GS form: C scope table */
    CT_HANDLER_FH3,    /* __CxxFrameHandler3 and its GS form: FuncInfo */
    CT_HANDLER_FH4,    /* __CxxFrameHandler4 and its GS form: FuncInfo4 */
    CT_HANDLER_LSDA,   /* gcc personality routines: language-specific data area */
    CT_HANDLER_LABELS, /* of hand-written assembly: labels of the function, and numbers */
    CT_HANDLER_GS,     /* __GSHandlerCheck: nothing in it depends on code addresses */
    CT_HANDLER_OTHER,  /* of no known kind */
};

enum ct_eh_what {
    CT_EH_LAND,    /* execution goes on here, in the frame itself, after unwinding */
    CT_EH_FUNCLET, /* a catch or cleanup funclet, called with the frame in RDX */
};

/* state: of __CxxFrameHandler3, what a cleanup ends or the try block begins that a catch is for; else CT_NONE. */
typedef void ct_eh_visit(void *context, enum ct_eh_what what, uint32_t rva, uint32_t state);

/* false: outside the image, or of an unknown version. */
bool ct_read_unwind(const struct ct_image *image, uint32_t rva, struct ct_unwind *out);
/* Number of 16-bit slots that the code at `slot` takes, 0 = unknown code. version 2's epilog codes included. */
unsigned ct_unwind_code_slots(uint8_t version, uint16_t code);

/* Does the handler data of the function [begin, end) look like this kind? */
bool ct_handler_fits(const struct ct_image *image, enum ct_handler kind, uint32_t data, uint32_t begin, uint32_t end,
                     uint64_t *budget);
/* Names every code address in the handler data. false: it contradicts itself, or the work budget is spent. */
bool ct_handler_visit(const struct ct_image *image, enum ct_handler kind, uint32_t data, uint32_t begin, uint32_t end,
                      uint64_t *budget, ct_eh_visit *visit, void *context);

/* A position in the image; reading past the end sets `bad`. */
struct ct_cursor {
    const struct ct_image *image;
    uint32_t at;
    bool bad;
};

uint32_t ct_get_u32(struct ct_cursor *cursor);
uint8_t ct_get_u8(struct ct_cursor *cursor);
uint32_t ct_get_compressed(struct ct_cursor *cursor); /* FH4's variable-length unsigned integer */
uint64_t ct_get_uleb(struct ct_cursor *cursor);
int64_t ct_get_sleb(struct ct_cursor *cursor);

/* __CxxFrameHandler3's FuncInfo, as far as it is used. */
struct ct_fh3 {
    uint32_t rva;
    uint32_t unwind_count, unwind_map;
    uint32_t try_count, try_map;
    uint32_t ip_count, ip_map;
};
bool ct_read_fh3(const struct ct_image *image, uint32_t rva, struct ct_fh3 *out);
/* Code that runs in `state`, directly inside the innermost catch funclet in which that state is entered; 0: it is
 * entered in the function itself. A function and all of its funclets have this data in common. */
uint32_t ct_fh3_handler_code(const struct ct_image *image, const struct ct_fh3 *info, uint32_t state, uint64_t *budget);
enum { CT_FH3_SIZE = 40 };

enum { CT_FH4_CATCH = 1, CT_FH4_SEPARATED = 2, CT_FH4_BBT = 4, CT_FH4_UNWIND = 8, CT_FH4_TRY = 16 };
struct ct_fh4 {
    uint8_t header;
    uint32_t bbt_flags, unwind_map, try_map, ip_map, frame;
};
bool ct_read_fh4(const struct ct_image *image, uint32_t rva, struct ct_fh4 *out);

enum { CT_FH4_ADJECTIVES = 1, CT_FH4_TYPE = 2, CT_FH4_OBJECT = 4, CT_FH4_CONT_RVA = 8 };
struct ct_fh4_catch {
    uint8_t header;
    uint32_t adjectives, type, object, handler;
    uint32_t continuation_count;
    uint32_t continuation[3]; /* RVAs */
};
/* begin: what function-relative continuation addresses count from. */
void ct_get_fh4_catch(struct ct_cursor *cursor, uint32_t begin, struct ct_fh4_catch *out);

/* gcc's language-specific data area. */
struct ct_lsda {
    uint8_t type_encoding;     /* DW_EH_PE_*; FFh = no types */
    uint8_t call_encoding;     /* DW_EH_PE_uleb128 or udata4 */
    uint32_t pads;             /* RVA landing pads count from */
    uint32_t types;            /* RVA behind the type table, 0 = none */
    uint32_t calls, calls_end; /* the action table starts at calls_end */
};
struct ct_lsda_call {
    uint32_t begin, end, pad; /* RVAs; pad 0 = none */
    uint64_t action;
};
bool ct_read_lsda(const struct ct_image *image, uint32_t rva, uint32_t begin, struct ct_lsda *out);
/* The next entry of the call-site table at cursor->at. */
void ct_get_lsda_call(struct ct_cursor *cursor, const struct ct_lsda *lsda, uint32_t begin, struct ct_lsda_call *out);
/* What the action chains in use refer to. */
struct ct_lsda_reach {
    uint32_t actions_end; /* RVA behind the last action */
    uint32_t types;       /* entries of the type table, which grows downwards from its base */
    uint32_t specs_end;   /* RVA behind the last exception specification, which grow upwards from it */
};
/* false: the work budget is spent, or a chain or specification does not end. */
bool ct_lsda_follow(const struct ct_image *image, const struct ct_lsda *lsda, uint32_t begin, uint64_t *budget,
                    struct ct_lsda_reach *out);
unsigned ct_lsda_type_size(uint8_t encoding); /* 0 = not one we can copy */

#endif
