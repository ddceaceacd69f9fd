//! CUDA, HIP, XLA, OpenCL and SYCL: allocation, hardware, faults in kernels.

use super::{Rule, Strength::*, rule};
use crate::logs::finding::Cause::*;

pub(super) const RULES: &[Rule] = &[
    // Allocation on the device.
    rule("cuda_oom", GpuOom, Fatal, r"(?i)\b(?:CUDA|HIP|XPU|MPS|GPU|device)(?: error| runtime error| driver error)?:? (?:backend )?(?:is )?(?:ran )?out of memory\b"),
    rule("cuda_oom_far", GpuOom, Fatal, r"\b(?:CUDA|HIP|cuda\w*|hip\w*|cupy)\b.{0,80}\b[Oo]ut of memory\b"),
    rule("cuda_error_oom", GpuOom, Fatal, r"\b(?:CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation|hipErrorOutOfMemory|hipErrorMemoryAllocation|CL_MEM_OBJECT_ALLOCATION_FAILURE|PI_ERROR_OUT_OF_RESOURCES|ZE_RESULT_ERROR_OUT_OF_DEVICE_MEMORY|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|CUFFT_ALLOC_FAILED|CUSPARSE_STATUS_ALLOC_FAILED|CUSOLVER_STATUS_ALLOC_FAILED|cudaErrorOutOfMemory)\b"),
    rule("torch_oom_type", GpuOom, Fatal, r"\b(?:torch\.)?(?:cuda\.)?OutOfMemoryError: (?:CUDA|HIP|XPU|Allocation on device)"),
    rule("cuda_free_failed", GpuOom, Fatal, r"Tried to allocate [\d.]+ [KMGT]i?B[.( ]"),
    rule("tf_gpu_oom", GpuOom, Fatal, r"OOM when allocating tensor .*(?:device:GPU|GPU_\d)|\bOOM when allocating tensor\b"),
    rule("xla_oom", GpuOom, Fatal, r"RESOURCE_EXHAUSTED: (?:Out of memory|Failed to allocate|Ran out of memory|XLA:TPU compile permanent error. Ran out of memory)|(?i)\bout of memory (?:while trying to|trying to) allocate \d+ bytes"),
    rule("gpu_malloc_failed", GpuOom, Fatal, r"(?i)\b(?:cuda|hip|gpu)_?(?:malloc|alloc)\w*\b.{0,40}(?:failed|out of memory)|failed to alloc\w* .{0,60}(?:from|on) (?:the )?(?:device|gpu)\b|\bout of (?:gpu|device|video) memory|not enough (?:gpu|device|video) memory|insufficient (?:gpu|device) memory"),
    rule("vllm_kv_cache", GpuOom, Fatal, r"No available memory for the cache blocks|larger than the available KV cache memory|larger than the maximum number of tokens that can be stored in KV cache|Free memory on device .* is less than desired GPU memory utilization"),
    // Hardware, driver, visibility.
    rule("nvidia_xid", GpuHw, Fatal, r"\bXid\b.*(?:PCI|\d+,)|GPU has fallen off the bus|fallen off the bus"),
    rule("gpu_ecc", GpuHw, Fatal, r"(?i)uncorrectable (?:ecc|nvlink) error|double[- ]bit ecc|cudaErrorECCUncorrectable|CUDA_ERROR_ECC_UNCORRECTABLE|HBM.*uncorrect"),
    rule("nvidia_smi", GpuHw, Fatal, r"NVIDIA-SMI has failed|Failed to initialize NVML|Unable to determine the device handle for GPU|couldn't communicate with the NVIDIA driver|No devices were found"),
    rule("driver_mismatch", GpuHw, Fatal, r"(?i)driver/library version mismatch|CUDA driver version is insufficient|NVIDIA driver on your system is too old|cudaErrorInsufficientDriver|CUDA_ERROR_SYSTEM_DRIVER_MISMATCH|system not yet initialized|CUDA_ERROR_SYSTEM_NOT_READY|forward compatibility was attempted on non supported HW"),
    rule("no_kernel_image", GpuHw, Fatal, r"no kernel image is available for execution|cudaErrorNoKernelImageForDevice|CUDA_ERROR_NO_BINARY_FOR_GPU|hipErrorNoBinaryForGpu|(?:HIP|CUDA) error: invalid device function|cudaErrorInvalidDeviceFunction|the provided PTX was compiled with an unsupported toolchain|requires? (?:a )?GPUs? with compute capability").infra(false),
    rule("not_compiled_for_gpu", GpuHw, Error, r"Torch not compiled with CUDA enabled|not compiled with GPU (?:support|offload)").infra(false),
    rule("sm_mismatch", GpuHw, Soft, r"with CUDA capability sm_\d+ is not compatible with the current PyTorch").infra(false),
    rule("no_gpu", GpuHw, Error, r"(?i)\bno (?:CUDA|HIP|NVIDIA|ROCm)(?:-capable|-compatible)?(?:-capable)? ?(?:GPUs?|devices?) (?:(?:is|are|were) )?(?:available|detected|found)|found no NVIDIA driver|no cuda-capable device|cudaErrorNoDevice|CUDA_ERROR_NO_DEVICE|hipErrorNoDevice|No GPU/TPU found|no GPUs? (?:were |was )?(?:found|detected|available)"),
    rule("gpu_busy", GpuHw, Fatal, r"all CUDA-capable devices are busy or unavailable|cudaErrorDevicesUnavailable|CUDA_ERROR_DEVICE_UNAVAILABLE|(?:CUDA|HIP) error: (?:invalid device ordinal|unknown error|initialization error|device kernel image is invalid|unspecified driver error|all CUDA)|cudaErrorInvalidDevice\b|hipErrorInvalidDevice\b|device kernel image is invalid|CUDA (?:driver )?initialization (?:error|failed)|CUDA_ERROR_UNKNOWN\b|CUDA unknown error|unable to (?:open|get device).*/dev/(?:kfd|nvidia)|Memory access fault by GPU node.*(?:ECC|hardware)|HSA_STATUS_ERROR_OUT_OF_RESOURCES"),
    rule("cuda_init", GpuHw, Error, r"(?:failed call to cuInit|cuInit failed|Unexpected error from cudaGetDeviceCount|cudaGetDeviceCount\(?\)? (?:failed|returned))"),
    rule("cudnn_init", GpuHw, Soft, r"Could not create cudnn handle|CUDNN_STATUS_NOT_INITIALIZED|CUBLAS_STATUS_NOT_INITIALIZED|cuDNN version incompatibility|Loaded runtime CuDNN library: .* but source was compiled with"),
    // Faults of kernels.
    rule("cuda_assert_line", Crash, Fatal, r"\.(?:cu|cuh|hip|h|cpp):\d+: .*(?:block|thread): \[\d+,\d+,\d+\].* Assertion `.*' failed|Assertion `.*` failed"),
    rule("cuda_illegal", Crash, Fatal, r"(?i)(?:an )?illegal memory access was encountered|device-side assert triggered|cudaErrorIllegalAddress|hipErrorIllegalAddress|CUDA_ERROR_ILLEGAL_ADDRESS|misaligned address|CUDA_ERROR_(?:MISALIGNED_ADDRESS|LAUNCH_FAILED|ASSERT|ILLEGAL_INSTRUCTION)|cudaErrorLaunchFailure|unspecified launch failure|cudaErrorAssert|illegal instruction was encountered|cudaErrorMisalignedAddress|cudaErrorIllegalInstruction"),
    rule("rocm_fault", Crash, Fatal, r"Memory access fault by GPU node|HSA_STATUS_ERROR_(?:EXCEPTION|MEMORY_APERTURE_VIOLATION|ILLEGAL_INSTRUCTION)"),
    rule("cuda_launch_config", AppError, Text, r"(?:CUDA|HIP) error: (?:invalid configuration argument|invalid argument|too many resources requested for launch|invalid resource handle|operation not permitted|operation not supported)"),
    rule("cublas_failed", AppError, Text, r"CUBLAS_STATUS_(?:EXECUTION_FAILED|INTERNAL_ERROR|INVALID_VALUE)|CUDNN_STATUS_(?:EXECUTION_FAILED|INTERNAL_ERROR|NOT_SUPPORTED|MAPPING_ERROR)"),
];
