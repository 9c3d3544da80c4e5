/* libFuzzer target: any bytes as the file of measured tiles. What is taken fits; writing keeps what others measured. */
#include "core/base.h"
#include "opencl/opencl.h"
#include "tests/fuzz_file.h"
#include "tests/fuzz_json.h"

static void read_it(const struct lh_cl_device *device, bool may_fail)
{
    struct lh_cl_tuning tuning;
    lh_error error;
    lh_cl_tuning_of_class(device, &tuning);
    const lh_status status = lh_cl_tuned_read(device, &tuning, &error);
    require(lh_cl_tuning_fits(&tuning));
    require(status == LH_OK || may_fail);
    if (status != LH_OK)
        fuzz_check_error(&error);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const struct lh_cl_device cpu = {.name = "cpu",
                                            .is_cpu = true,
                                            .has_cpu_body = true,
                                            .float_width = 8,
                                            .local_memory = 1 << 19,
                                            .group_size = 4096},
                                     gpu = {.name = "gpu",
                                            .float_width = 1,
                                            .local_memory = 49152,
                                            .group_size = 1024};
    static char path[LH_TUNED_PATH];
    char written[LH_TUNED_PATH];
    struct lh_cl_tuning tuning;
    const int64_t live = lh_alloc_live();
    if (!*fuzz_folder) {
        require(setenv("XDG_CONFIG_HOME", fuzz_make_folder(), 1) == 0);
        snprintf(path, sizeof path, "%s/lighthouse", fuzz_folder);
        require(mkdir(path, 0700) == 0);
        snprintf(path, sizeof path, "%s/lighthouse/opencl.json", fuzz_folder);
        fuzz_write(path, bytes, size); /* readers look whether it is there */
    }
    fuzz_serve(path, bytes, size);
    read_it(&cpu, true);
    read_it(&gpu, true);
    if (fuzz_seldom(bytes, size, 256)) {
        lh_error error;
        fuzz_write(path, bytes, size);
        lh_cl_tuning_of_class(&cpu, &tuning);
        if (lh_cl_tuned_write(&cpu, &tuning, written, &error) == LH_OK)
            read_it(&cpu, false);
        else
            fuzz_check_error(&error);
    }
    require(lh_alloc_live() == live);
    return 0;
}
