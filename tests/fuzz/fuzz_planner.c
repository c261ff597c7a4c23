/* libFuzzer's target for the planner.
 *
 * An input is a packed image: struct head, then pages, each as its number and a length of two bytes and the page's
 * first bytes. Whatever the image holds, the planner must stay within it, and its copies and patches within theirs.
 */
#include "limit.h"

#include <string.h>

#include "../include/trace_format.h"
#include "plan.h"

#define PAGE 0x1000u
#define PAGES 512u

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            abort();                                                                                                   \
    } while (0)

struct head {
    uint32_t size, pdata, pdata_size, relocs, relocs_size;
    uint32_t exec[2][2];
    uint32_t seeds[4];
    uint32_t import;
    uint16_t detail, cut;
};

/* What stands in for the assembled stubs: their sizes count, not what they do. */
static struct ct_stub stub(uint32_t size, uint32_t entry, uint32_t code_at)
{
    struct ct_stub made = {.size = size, .entry = entry, .code_at = code_at, .slow_at = 1};
    memset(made.bytes, 0x90, sizeof made.bytes);
    return made;
}

static struct ct_codegen codegen(const struct head *head)
{
    struct ct_codegen made = {
        .event = stub(60, 7, 30),
        .event_inline = stub(62, 0, 30),
        .frame_rsp = stub(58, 0, CT_NONE),
        .frame_rdx = stub(58, 0, CT_NONE),
        .jump = {.size = 160, .split = 9, .start_at = 40, .length_at = 50, .map_at = 60, .region_at = 80},
        .detail = head->detail % 3,
        .first_function = head->cut & 1 ? CT_ID_LIMIT - 20 : 0,
        .first_site = head->cut & 2 ? CT_ID_LIMIT - 20 : 0,
        .breakpoints = !(head->cut & 4),
    };
    return made;
}

static void check_functions(const struct ct_plan *plan, uint32_t instrumented)
{
    uint32_t count, well = 0;
    const struct ct_function *functions = ct_plan_functions(plan, &count);
    for (uint32_t i = 0; i < count; i++) {
        CHECK(functions[i].status < CT_STATUS_COUNT);
        CHECK(functions[i].parent == CT_NONE || functions[i].parent < count);
        well += functions[i].status == CT_OK;
    }
    CHECK(well == instrumented);
}

static uint32_t u32(const uint8_t *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static void check_region(const struct ct_image *image, uint32_t region, const struct ct_layout *layout,
                         const struct ct_region *made)
{
    uint32_t last = region;
    CHECK(made->table >= region + layout->code_size);
    CHECK(made->table - region + 12ull * made->table_count <= layout->region_size);
    for (uint32_t i = 0; i < made->table_count; i++) {
        const uint8_t *entry = made->bytes + (made->table - region) + 12 * i;
        uint32_t begin = u32(entry), end = u32(entry + 4), unwind = u32(entry + 8);
        CHECK(begin >= last && begin < end && end <= region + layout->code_size);
        CHECK(unwind % 4 == 0 && unwind >= region + layout->code_size && unwind < made->table);
        last = end;
    }
    uint32_t breakpoints = 0;
    for (uint32_t i = 0; i < made->patch_count; i++) {
        const struct ct_patch *patch = &made->patches[i];
        CHECK((patch->size == 5 || patch->size == 2 || patch->size == 1) && patch->rva <= image->size - patch->size);
        CHECK(memcmp(patch->original, image->bytes + patch->rva, patch->size) == 0);
        if (patch->size == 1) {
            CHECK(patch->bytes[0] == 0xCC && breakpoints < made->breakpoint_count);
            const uint8_t *told = made->bytes + (made->breakpoints - region) + 8 * breakpoints++;
            CHECK(u32(told) == patch->rva);
            CHECK(u32(told + 4) >= region && u32(told + 4) < region + layout->code_size);
        }
    }
    CHECK(breakpoints == made->breakpoint_count && breakpoints == layout->breakpoints);
    CHECK(made->breakpoints - region + 8ull * breakpoints <= layout->region_size);
}

/* Every copied instruction is found from its copy. */
static void check_copies(struct ct_plan *plan, const struct ct_image *image, const struct ct_layout *layout)
{
    struct ct_copies copies;
    CHECK(ct_plan_copies(plan, &copies));
    for (uint32_t i = 0; i < copies.piece_count; i++) {
        const struct ct_piece *piece = &copies.pieces[i];
        CHECK(piece->begin <= layout->code_size && (piece->rva == CT_NONE || piece->rva <= image->size));
        CHECK(!i || piece[-1].begin < piece->begin);
    }
    CHECK(!copies.piece_count || copies.pieces[copies.piece_count - 1].rva == CT_NONE);
    for (uint32_t i = 0; i < copies.copied_count; i++) {
        const struct ct_copied *copied = &copies.copied[i];
        uint32_t low = 0, high = copies.piece_count;
        CHECK(!i || copied[-1].rva < copied->rva);
        while (low < high) { /* the first piece that begins behind the copy's first byte */
            uint32_t middle = low + (high - low) / 2;
            if (copies.pieces[middle].begin <= copied->begin) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        CHECK(low && copies.pieces[low - 1].rva == copied->rva);
        CHECK(copied->at == copied->begin || !copied->at);
    }
}

static void plan_image(const struct ct_image *image, const struct head *head)
{
    struct ct_plan *plan = ct_plan_open(image);
    CHECK(plan);
    struct ct_codegen made_of = codegen(head);
    struct ct_layout layout;
    struct ct_region made;
    if (ct_plan_layout(plan, &made_of, &layout)) {
        uint32_t sites, regions[] = {(image->size + PAGE - 1) / PAGE * PAGE, 0x40000000};
        check_functions(plan, layout.instrumented);
        ct_plan_sites(plan, &sites);
        CHECK(sites == layout.site_count);
        for (unsigned i = 0; i < 2; i++) {
            CHECK(ct_plan_emit(plan, regions[i], &made));
            check_region(image, regions[i], &layout, &made);
            check_copies(plan, image, &layout);
        }
    }
    ct_plan_close(plan);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct head head;
    if (size < sizeof head) {
        return 0;
    }
    memcpy(&head, data, sizeof head);
    uint32_t image_size = head.size % (PAGES * PAGE) + 1;
    uint8_t *bytes = malloc(image_size); /* exactly so many, so that a byte read behind it is noticed */
    CHECK(bytes);
    memset(bytes, 0xCC, image_size); /* code that ends at once */
    for (size_t at = sizeof head; at + 4 <= size;) {
        uint32_t page = (data[at] | data[at + 1] << 8) % PAGES;
        size_t length = (size_t)(data[at + 2] | data[at + 3] << 8) % (PAGE + 1);
        at += 4;
        length = length < size - at ? length : size - at;
        uint32_t start = page * PAGE;
        if (start < image_size) {
            memcpy(bytes + start, data + at, length < image_size - start ? length : image_size - start);
        }
        at += length;
    }
    struct ct_range exec[2];
    uint32_t sections = 0;
    for (unsigned i = 0; i < 2; i++) { /* ascending and disjoint, as the host passes them */
        uint32_t begin = head.exec[i][0], end = head.exec[i][1] < image_size ? head.exec[i][1] : image_size;
        if (begin < end && (sections == 0 || begin >= exec[0].end)) {
            exec[sections++] = (struct ct_range){begin, end};
        }
    }
    struct ct_seed seeds[4];
    for (unsigned i = 0; i < 4; i++) {
        seeds[i] = (struct ct_seed){head.seeds[i], CT_SOURCE_EXPORT << i};
    }
    struct ct_known known = {head.import, CT_TRAIT_RETURNS_TWICE + head.seeds[0] % 2};
    bool pdata = head.pdata <= image_size && head.pdata_size <= image_size - head.pdata;
    bool relocs = head.relocs <= image_size && head.relocs_size <= image_size - head.relocs;
    struct ct_image image = {
        .bytes = bytes,
        .base = 0x140000000,
        .size = image_size,
        .pdata = pdata ? head.pdata : 0,
        .pdata_size = pdata ? head.pdata_size : 0,
        .relocs = relocs ? head.relocs : 0,
        .relocs_size = relocs ? head.relocs_size : 0,
        .exec_count = sections,
        .exec = exec,
        .seeds = seeds,
        .seed_count = 4,
        .imports = &head.import,
        .import_count = 1,
        .known = &known,
        .known_count = 1,
    };
    begin_limit();
    plan_image(&image, &head);
    end_limit();
    free(bytes);
    return 0;
}
