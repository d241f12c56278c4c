// What changed between two steps, tensor by tensor.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/result.h"
#include "checkpoint/catalog.h"

namespace bitctl {

// Of one side of a tensor.
struct TensorSide {
  std::string dtype;
  std::vector<int64_t> shape;
  uint64_t nan = 0;
  uint64_t infinite = 0;
};

// Over the elements that are finite on both sides, computed in double: a NaN is counted, not spread.
struct TensorDelta {
  double norm = 0;                    // √Σ(b-a)²
  double max = 0;                     // largest |b-a|
  std::optional<double> norm_of_a{};  // √Σa², for a relative change; nothing where the tensor was not read
};

struct TensorChange {
  std::string file;
  std::string name;
  std::optional<TensorSide> a, b;    // absent where only the other step has it
  bool same = false;                 // dtype, shape and every bit
  std::optional<uint64_t> changed;   // elements whose bits differ; nothing across dtypes or shapes
  std::optional<TensorDelta> delta;  // nothing across shapes, or where an element is no single number
};

// Calls `tell` for each tensor of either step, in a's order, then what only b has. Tensors that both
// manifests give the same digest are read only where a NaN may be in them. Holds a few MiB whatever the size
// of the steps. Both are opened under a shared lock on <checkpoints>/.lock; blocks for it and for the disk.
// Error::damaged names the file and the tensor.
Status diff_steps(const StepFolder& a, const StepFolder& b,
                  const std::function<void(const TensorChange&)>& tell);

}  // namespace bitctl
