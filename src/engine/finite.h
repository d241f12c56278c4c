// Whether a tensor holds a NaN or an infinity, at the speed of memory and in no memory of its own.
#pragma once

#include <ATen/core/Tensor.h>

namespace bitctl::engine {

// `tensor` is a dense CPU tensor of any dtype; integers are always finite. One thread: it shares the machine
// with a training, and one reads faster than the disk writes.
bool all_finite(const at::Tensor& tensor);

}  // namespace bitctl::engine
