/* The planner: what a module's functions are, and what their instrumented copies look like.
 *
 *   ct_plan_open    decode: RUNTIME_FUNCTIONs, their groups, leaf functions, every instruction of each
 *   ct_plan_select  leave functions out that the user does not want
 *   ct_plan_layout  where each copy will lie in the region; refuses what cannot be copied
 *   ct_plan_emit    write the region and the patches for a region address
 *
 * Nothing here touches a process: the image is a read-only array of bytes in its mapped layout, possibly hostile.
 * All addresses are RVAs of the image; the region lies above the image, so its addresses are RVAs too.
 */
#ifndef CALLTRACE_PLAN_H
#define CALLTRACE_PLAN_H

#include "../include/recorder.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define CT_EXPORT __declspec(dllexport)
#else
#define CT_EXPORT __attribute__((visibility("default")))
#endif

/* Why a function is not instrumented. ct_status_text() has the sentence for each. */
enum ct_status {
    CT_OK = 0,
    CT_TOO_SHORT,          /* no room for a jump at its start; like the next two only without breakpoints */
    CT_BRANCH_INTO_ENTRY,  /* something jumps into the bytes the jump would cover */
    CT_CALL_IN_ENTRY,      /* a call would return into the bytes the jump would cover */
    CT_UNDECODABLE,        /* its first instruction */
    CT_UNWIND_BAD,         /* UNWIND_INFO outside the image or senseless */
    CT_UNWIND_UNKNOWN,     /* UNWIND_INFO of a version or with a code not known */
    CT_PROLOG_TOO_LONG,    /* prolog offsets over 255 in the copy */
    CT_HANDLER_UNKNOWN,    /* a language handler whose data is of no known kind */
    CT_HANDLER_BAD,        /* handler data that contradicts itself */
    CT_OVERLAP,            /* RUNTIME_FUNCTIONs that overlap, or lie outside executable sections */
    CT_POSITION_DEPENDENT, /* takes its own address from the stack, behind a call */
    CT_OUT_OF_RANGE,       /* an operand cannot be reached from the copy */
    CT_IDS_EXHAUSTED,      /* more functions or call sites than a trace can number */
    CT_THUNK,              /* import thunk: its calls are recorded where they are made */
    CT_FILTERED,           /* left out by the user's patterns */
    CT_RUNTIME_CODE,       /* a language runtime looks for its return addresses in tables of its own */
    CT_READ_AS_DATA,       /* something reads or writes its first bytes, which a jump would change */
    CT_STATUS_COUNT
};

/* What ct_plan_select is told of a function. */
enum ct_choice {
    CT_CHOICE_LEAVE = 0, /* becomes CT_FILTERED */
    CT_CHOICE_WANT = 1,
    CT_CHOICE_RUNTIME = 2, /* becomes CT_RUNTIME_CODE */
};

struct ct_range {
    uint32_t begin, end;
};

struct ct_seed {
    uint32_t rva;
    uint32_t source; /* enum ct_source */
};

/* What is known of a function by its name or its bytes. */
enum ct_trait {
    CT_TRAIT_RETURNS_TWICE = 1, /* setjmp: once more when longjmp goes back to it */
    CT_TRAIT_SWITCHES = 2,      /* SwitchToFiber: comes back when the thread goes on with this stack again */
};

struct ct_known {
    uint32_t rva;   /* of the function, or of its address table slot */
    uint32_t trait; /* enum ct_trait */
};

struct ct_image {
    const uint8_t *bytes; /* mapped layout; must stay valid as long as the plan */
    uint64_t base;        /* VA */
    uint32_t size;
    uint32_t pdata, pdata_size;   /* exception directory */
    uint32_t relocs, relocs_size; /* base relocation directory, 0 if none */
    uint32_t exec_count;
    const struct ct_range *exec;  /* executable sections, ascending, disjoint */
    const struct ct_seed *seeds;  /* exports, entry point, TLS callbacks, Guard CF functions, symbols */
    const uint32_t *imports;      /* RVAs of import address table slots, ascending */
    const struct ct_known *known; /* ascending */
    uint32_t seed_count;
    uint32_t import_count;
    uint32_t known_count;
    uint32_t reserved;
};

struct ct_function {
    uint32_t rva;
    uint32_t size;      /* bytes in all parts */
    uint32_t status;    /* enum ct_status */
    uint32_t status_at; /* RVA of what the status is about */
    uint32_t parent;    /* index of the function a funclet belongs to, else CT_NONE */
    uint16_t sources;   /* enum ct_source */
    uint16_t flags;     /* enum ct_function_flags, enum ct_entry */
};

/* A contiguous piece of a function's code. */
struct ct_extent {
    uint32_t begin, end;
    uint32_t function; /* index of the function */
};

struct ct_site {
    uint32_t rva;      /* of the call, or of a jump out of the function */
    uint32_t function; /* event id of the function that holds it; with CT_SITE_TAIL for a jump */
    uint32_t target;   /* RVA of a direct target, else 0 */
    uint32_t import;   /* index into image.imports, else CT_NONE */
};

enum ct_detail {
    CT_EVENTS_FUNCTIONS = 0, /* ENTER, LEAVE, TAIL, LAND */
    CT_EVENTS_OUTWARD = 1,   /* and CALL, RETURN where control may leave instrumented code */
    CT_EVENTS_ALL = 2,       /* and CALL, RETURN at every other call */
};

/* A piece of the copies, up to the next one: an instruction's copy, or code that does part of its work. */
struct ct_piece {
    uint32_t begin; /* offset in the region */
    uint32_t rva;   /* the original instruction; CT_NONE: what is no copy of a function */
};

/* An instruction that was copied. */
struct ct_copied {
    uint32_t rva;
    uint32_t begin; /* offset in the region: a jump to the original leads there in the copy */
    uint32_t at;    /* where a breakpoint on it has to stand; 0: where it is, since every call passes there, and
                     * nothing in the copy goes back to it */
};

/* The map between original instructions and their copies, both ways. */
struct ct_copies {
    const struct ct_piece *pieces;  /* ascending by `begin` */
    const struct ct_copied *copied; /* ascending by `rva` */
    uint32_t piece_count;
    uint32_t copied_count;
};

/* Machine code, assembled once per session. The parts that differ from one place to the next are filled in at the
 * offsets given; CT_NONE where a stub has no such part. */
#define CT_STUB_MAX 224
struct ct_stub {
    uint8_t bytes[CT_STUB_MAX];
    uint32_t size;
    uint32_t entry;   /* offset where execution starts; it ends at `size` */
    uint32_t code_at; /* imm32 or disp32: the event's code */
    uint32_t slow_at; /* rel32: the region's slow-path thunk */
};

/* An indirect jump that may stay inside its function: looks its target up in an address map of the function. Bytes
 * before `split` free RCX, then comes `mov rcx, operand`, then the rest, which jumps to the copy if there is one and
 * otherwise falls out at its end with everything restored. */
struct ct_jump_stub {
    uint8_t bytes[CT_STUB_MAX];
    uint32_t size;
    uint32_t split;
    uint32_t start_at;  /* rel32: the original code that the map covers */
    uint32_t length_at; /* imm32: bytes covered */
    uint32_t map_at;    /* rel32: uint32_t[length], offset in the region or 0 */
    uint32_t region_at; /* rel32: the region */
};

struct ct_codegen {
    struct ct_stub event;        /* records `code`; entered by a jump */
    struct ct_stub event_inline; /* the same; entered by falling into it: entry = 0 */
    struct ct_stub frame_rsp;    /* records RSP as a CT_FRAME; entry = 0 */
    struct ct_stub frame_rdx;    /* records RDX, the establisher frame a funclet is called with; entry = 0 */
    struct ct_jump_stub jump;
    uint64_t slow_path;      /* VA */
    uint32_t detail;         /* enum ct_detail */
    uint32_t first_function; /* event ids start here */
    uint32_t first_site;
    uint32_t whole;       /* units can say that a function was entered and left at once (CT_WHOLE) */
    uint32_t breakpoints; /* a function without room for a jump may start with an int3 that the recorder catches */
    uint32_t hits;        /* a copy tells nothing but of its entry, by a struct ct_hook: event stubs are empty */
};

struct ct_layout {
    uint32_t region_size; /* whole pages */
    uint32_t code_size;   /* the executable part at its start, whole pages */
    uint32_t copy_bytes;  /* bytes of code in use */
    uint32_t data_bytes;  /* bytes of unwind data and address maps in use */
    uint32_t site_count;
    uint32_t instrumented;
    uint32_t breakpoints; /* those of them that start with an int3 */
};

struct ct_region {
    const uint8_t *bytes; /* region_size of them */
    uint32_t table;       /* RVA of the sorted RUNTIME_FUNCTION array of the copies */
    uint32_t table_count;
    const struct ct_patch *patches; /* in the order to write them: a jump before what jumps to it */
    uint32_t patch_count;
    uint32_t breakpoints; /* RVA of the array of struct ct_breakpoint */
    uint32_t breakpoint_count;
};

struct ct_plan;

CT_EXPORT const char *ct_status_text(uint32_t status);
/* NULL: out of memory. Never fails otherwise: damage ends up as functions' statuses. */
CT_EXPORT struct ct_plan *ct_plan_open(const struct ct_image *image);
CT_EXPORT void ct_plan_close(struct ct_plan *plan);
CT_EXPORT const struct ct_function *ct_plan_functions(const struct ct_plan *plan, uint32_t *count);
/* Every piece of every function, ascending and disjoint. */
CT_EXPORT const struct ct_extent *ct_plan_extents(const struct ct_plan *plan, uint32_t *count);
/* wanted: one enum ct_choice for each function. Before ct_plan_layout. */
CT_EXPORT void ct_plan_select(struct ct_plan *plan, const uint8_t *wanted);
/* false: out of memory, or a region over 1 GB. */
CT_EXPORT bool ct_plan_layout(struct ct_plan *plan, const struct ct_codegen *codegen, struct ct_layout *out);
CT_EXPORT const struct ct_site *ct_plan_sites(const struct ct_plan *plan, uint32_t *count);
/* region: RVA, page-aligned, image.size <= region, region + region_size < 2 GB. false: out of memory or range. */
CT_EXPORT bool ct_plan_emit(struct ct_plan *plan, uint32_t region, struct ct_region *out);
/* After ct_plan_emit, valid until the next layout. false: out of memory. Event code belongs to the instruction it
 * stands before, that at the exits to the one that leaves the function, and a call's return address to the next one. */
CT_EXPORT bool ct_plan_copies(struct ct_plan *plan, struct ct_copies *out);

#endif
