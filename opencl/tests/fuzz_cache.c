/*
 * libFuzzer target: any bytes as a built program on disk. Only what was written under its own key comes back: first as a
 * file, then under a seal made here, and now and then through the writer.
 */
#include "core/base.h"
#include "core/hash.h"
#include "opencl/opencl.h"
#include "tests/fuzz_file.h"

static char key[65];

static bool found(const char name[65], const void *wanted, size_t size)
{
    unsigned char *binary = NULL;
    size_t bytes = 0;
    require(lh_cl_cache_read(name, &binary, &bytes, NULL) == LH_OK);
    const bool here = binary != NULL;
    require(!here || (bytes == size && memcmp(binary, wanted, size) == 0));
    lh_free(binary);
    return here;
}

/* The first line of a cached program: the hash of the key and of the program's hash, each with its zero byte. */
static void seal(const char name[65], const void *program, size_t size, char line[66])
{
    char hashes[2][65];
    memcpy(hashes[0], name, 65);
    lh_sha256_hex(program, size, hashes[1]);
    lh_sha256_hex(hashes, sizeof hashes, line);
    strcat(line, "\n");
}

/* Written by the library: read back, but not under another's name. */
static void write_and_read(const char *path, const char *other, const uint8_t *bytes, size_t size)
{
    static unsigned char image[1 << 17];
    char there[128];
    *fuzz_served = '\0';
    lh_cl_cache_write(key, bytes, size);
    require(found(key, bytes, size) == (size > 0));
    FILE *file = fopen(path, "rb");
    require(file != NULL);
    const size_t whole = fread(image, 1, sizeof image, file);
    fclose(file);
    snprintf(there, sizeof there, "%s/lighthouse/%s", fuzz_folder, other);
    fuzz_write(there, image, whole);
    require(!found(other, NULL, 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static char path[128], other[65];
    static unsigned char image[1 << 17];
    const int64_t live = lh_alloc_live();
    if (!*fuzz_folder) {
        memset(key, 'a', 64);
        memset(other, 'b', 64);
        require(setenv("XDG_CACHE_HOME", fuzz_make_folder(), 1) == 0);
        snprintf(path, sizeof path, "%s/lighthouse", fuzz_folder);
        require(mkdir(path, 0700) == 0);
        snprintf(path, sizeof path, "%s/lighthouse/%s", fuzz_folder, key);
    }
    fuzz_serve(path, bytes, size);
    found(key, size > 65 ? bytes + 65 : NULL,
          size > 65 ? size - 65 : 0); /* only a seal that fits lets it through */
    require(size < sizeof image - 66);
    const size_t whole = 65 + size;
    seal(key, bytes, size, (char *)image);
    memcpy(image + 65, bytes, size);
    fuzz_serve(path, image, whole);
    require(found(key, bytes, size) == (size > 0));
    const size_t at = size > 0 ? (bytes[0] * 31 + size) % whole : 0;
    if (at != 64) { /* the newline behind the seal says nothing */
        image[at] ^= 1;
        fuzz_serve(path, image, whole);
        require(!found(key, NULL, 0));
    }
    if (fuzz_seldom(bytes, size, 256))
        write_and_read(path, other, bytes, size);
    require(lh_alloc_live() == live);
    return 0;
}
