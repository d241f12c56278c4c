/* The door between bitctl and the libtorch engine module: a versioned C ABI. Nothing here is thread-safe for
 * one model; several models may be used by several threads. No exception passes; every failure is a text. The
 * host blocks its signals before it loads the module, so that libtorch's threads inherit the mask. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BITCTL_ENGINE_ABI 2
#define BITCTL_ENGINE_ENTRY "bitctl_engine_entry"

typedef struct bitctl_tensor {
  const char* name;
  const char* dtype;    /* as safetensors names it: "F32", "BF16", "I64", … */
  const int64_t* shape; /* `rank` sizes */
  size_t rank;
  const void*
      data; /* C order; stays valid and unchanged as long as the call or, for a model, the model lives */
  size_t bytes;
} bitctl_tensor;

typedef struct bitctl_engine_error {
  char text[1024]; /* UTF-8, one line, ends in NUL */
} bitctl_engine_error;

typedef struct bitctl_model bitctl_model;

typedef struct bitctl_model_options {
  int threads;         /* 0: as many as the machine has */
  int64_t max_context; /* KV cache positions; 0: the model's own limit */
  const char* device;  /* "auto", "cpu"; an engine refuses by name what it does not have */
  void* owner;         /* keeps the tensors' memory; released through `release` when the model is closed */
  void (*release)(void*);
} bitctl_model_options;

typedef struct bitctl_model_info {
  int64_t vocab_size;
  int64_t max_context;
  char device[32];
  char dtype[16]; /* in which it computes: "float32", "bfloat16", "float16" */
} bitctl_model_info;

/* Every function returns 0, or 1 with `error` filled. */
typedef struct bitctl_engine {
  uint32_t abi;              /* BITCTL_ENGINE_ABI */
  uint32_t bytes;            /* sizeof(bitctl_engine) */
  const char* torch_version; /* "2.13.0+cpu" */

  /* Views every tensor through libtorch: dtype known, shape × dtype = bytes (refused otherwise, with a text
   * that starts with "torch: " and names the tensor). Their bytes are not read. On the caller's thread. */
  int (*check_tensors)(const bitctl_tensor* tensors, size_t count, bitctl_engine_error* error);

  /* A Llama (config.json as text). Refuses other architectures and what it does not implement, by name. The
   * owner is released also on failure. */
  int (*model_open)(const char* config_json, const bitctl_tensor* tensors, size_t count,
                    const bitctl_model_options* options, bitctl_model** model, bitctl_model_info* info,
                    bitctl_engine_error* error);
  /* Runs `count` token ids at positions position … position + count - 1; what the KV cache held from
   * `position` on is forgotten, and nothing may be missing before it. Writes the logits after the last one:
   * vocab_size floats. */
  int (*model_forward)(bitctl_model* model, const int32_t* ids, size_t count, size_t position, float* logits,
                       bitctl_engine_error* error);
  void (*model_close)(bitctl_model* model);
} bitctl_engine;

/* The module's one symbol; `abi` is the host's BITCTL_ENGINE_ABI. NULL where the module does not speak it. */
typedef const bitctl_engine* (*bitctl_engine_entry_fn)(uint32_t abi);

#ifdef __cplusplus
}
#endif
