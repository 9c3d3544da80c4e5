/* cublas.c: finding cuBLAS. */
#include "cuda/cublas.h"

#include <dlfcn.h>

bool lh_cublas_open(lh_cublas *c)
{
    static const char *const names[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so"};
    *c = (lh_cublas){0};
    for (size_t i = 0; i < sizeof names / sizeof *names && !c->library; i++)
        c->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!c->library)
        return false;
    *(void **)&c->create = dlsym(c->library, "cublasCreate_v2");
    *(void **)&c->destroy = dlsym(c->library, "cublasDestroy_v2");
    *(void **)&c->set_stream = dlsym(c->library, "cublasSetStream_v2");
    *(void **)&c->set_workspace = dlsym(c->library, "cublasSetWorkspace_v2");
    *(void **)&c->property = dlsym(c->library, "cublasGetProperty");
    *(void **)&c->gemm = dlsym(c->library, "cublasGemmEx");
    if (!c->create || !c->destroy || !c->set_stream || !c->set_workspace || !c->property || !c->gemm ||
        c->create(&c->handle) != 0)
        return false;
    int *const parts[] = {&c->major, &c->minor, &c->patch};
    for (int i = 0; i < 3; i++)
        c->property(i, parts[i]);
    return true;
}

void lh_cublas_close(lh_cublas *c)
{
    if (c->handle)
        c->destroy(c->handle);
    c->handle = NULL;
    /* The library stays: what it left in CUDA's context is not to be unmapped under it. */
}
