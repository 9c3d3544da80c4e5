#!/bin/sh
# Intel's FPGA emulator: the CPU runtime's compiler in another driver, which calls itself an accelerator and so gets the GPU body. On a
# processor that it does not know (an AMD one) it crashes or has no device, unless it is told what to build for.
. "$(dirname "$0")/with.sh"
release=2025.0.5 # the last
from_pypi intel-opencl-fpga-emu-rt==$release intel-opencl-rt==$release intel-cmplr-lib-rt==$release
rm -f "$folder"/venv/lib/libOpenCL.so* # the system's loader is to be used
export LD_LIBRARY_PATH="$folder/venv/lib" CL_CONFIG_CPU_TARGET_ARCH=core-avx2
driver "$folder/venv/lib/libintelocl_emu.so"
version
judge gpu "$@"
judge cpu "$@"
same_bits
