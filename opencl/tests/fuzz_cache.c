/* libFuzzer target: any bytes as a built program on disk. Only what was written under its own key comes back. */
#include "core/base.h"
#include "core/hash.h"
#include "opencl/opencl.h"
#include "tests/fuzz_file.h"

static bool found(const char key[65], const void *wanted, size_t size)
{
    unsigned char *binary = NULL;
    size_t bytes = 0;
    require(lh_cl_cache_read(key, &binary, &bytes, NULL) == LH_OK);
    const bool here = binary != NULL;
    require(!here || (bytes == size && memcmp(binary, wanted, size) == 0));
    lh_free(binary);
    return here;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    char path[128], key[65], other[65];
    const int64_t live = lh_alloc_live();
    if (!*fuzz_folder) {
        require(setenv("XDG_CACHE_HOME", fuzz_make_folder(), 1) == 0);
        snprintf(path, sizeof path, "%s/lighthouse", fuzz_folder);
        require(mkdir(path, 0700) == 0);
    }
    memset(key, 'a', 64);
    memset(other, 'b', 64);
    key[64] = other[64] = '\0';
    snprintf(path, sizeof path, "%s/lighthouse/%s", fuzz_folder, key);
    fuzz_write(path, bytes, size);
    found(key, size > 65 ? bytes + 65 : NULL,
          size > 65 ? size - 65 : 0); /* only a seal that fits lets it through */
    lh_cl_cache_write(key, bytes, size);
    require(found(key, bytes, size) == (size > 0));
    /* Under another's name, or with a byte changed, it is none. */
    static unsigned char image[1 << 17];
    FILE *file = fopen(path, "rb");
    require(file != NULL);
    const size_t whole = fread(image, 1, sizeof image, file);
    fclose(file);
    char there[128];
    snprintf(there, sizeof there, "%s/lighthouse/%s", fuzz_folder, other);
    fuzz_write(there, image, whole);
    require(!found(other, NULL, 0));
    const size_t at = size > 0 ? (bytes[0] * 31 + size) % whole : 0;
    if (at != 64) { /* the newline behind the seal says nothing */
        image[at] ^= 1;
        fuzz_write(path, image, whole);
        require(!found(key, NULL, 0));
    }
    require(lh_alloc_live() == live);
    return 0;
}
