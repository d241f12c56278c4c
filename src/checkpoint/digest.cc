#include "checkpoint/digest.h"

#include <fmt/format.h>
#include <xxhash.h>

namespace bitctl {
namespace {

std::string hex_of(XXH128_hash_t hash) { return fmt::format("{:016x}{:016x}", hash.high64, hash.low64); }

}  // namespace

struct Digest::State {
  XXH3_state_t* xxh = XXH3_createState();
  ~State() { XXH3_freeState(xxh); }
};

Digest::Digest() : state_(std::make_unique<State>()) { reset(); }
Digest::~Digest() = default;
Digest::Digest(Digest&&) noexcept = default;
Digest& Digest::operator=(Digest&&) noexcept = default;

void Digest::reset() { XXH3_128bits_reset(state_->xxh); }
void Digest::update(const void* data, size_t size) { XXH3_128bits_update(state_->xxh, data, size); }
std::string Digest::hex() const { return hex_of(XXH3_128bits_digest(state_->xxh)); }

std::string digest_of(std::string_view bytes) { return hex_of(XXH3_128bits(bytes.data(), bytes.size())); }

}  // namespace bitctl
