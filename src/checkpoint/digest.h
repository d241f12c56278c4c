// XXH3-128 as 32 hexadecimal digits: against bit rot and torn writes, not against an adversary.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "safetensors/header.h"

namespace bitctl {

std::string digest_of(std::string_view bytes);

// The same over bytes that come in pieces.
class Digest {
 public:
  Digest();
  ~Digest();
  Digest(Digest&&) noexcept;
  Digest& operator=(Digest&&) noexcept;

  void reset();
  void update(const void* data, size_t size);
  std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The digests of a file's tensors while its bytes pass through the cache, block by block and in order.
class TensorDigests {
 public:
  enum class Values { ignored, checked };

  // `tensors` tile `data` in this order; both outlive the object.
  TensorDigests(std::vector<const TensorInfo*> tensors, const char* data, Values values);

  // All bytes before `offset` are in memory, and stay as they are.
  void advance(uint64_t offset);

  const std::vector<std::string>& done() const { return done_; }         // of the first tensors, in order
  const std::vector<size_t>& non_finite() const { return non_finite_; }  // indices of those, where checked

 private:
  void take(uint64_t end);

  std::vector<const TensorInfo*> tensors_;
  const char* data_;
  Values values_;
  Digest digest_;
  uint64_t at_ = 0;       // digested up to here
  uint64_t checked_ = 0;  // whole elements up to here
  bool finite_ = true;    // of the tensor at hand
  std::vector<std::string> done_;
  std::vector<size_t> non_finite_;
};

}  // namespace bitctl
