// XXH3-128 as 32 hexadecimal digits: against bit rot and torn writes, not against an adversary.
#pragma once

#include <memory>
#include <string>
#include <string_view>

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

}  // namespace bitctl
