#include "checkpoint/digest.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>

#include "checkpoint/finite.h"

namespace bitctl {
namespace {

constexpr uint64_t kPiece = 64 << 10;  // looked at twice, the second time in the cache

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

TensorDigests::TensorDigests(std::vector<const TensorInfo*> tensors, const char* data, Values values)
    : tensors_(std::move(tensors)), data_(data), values_(values) {
  done_.reserve(tensors_.size());
}

void TensorDigests::advance(uint64_t offset) {
  while (done_.size() < tensors_.size()) {
    const TensorInfo& tensor = *tensors_[done_.size()];
    while (at_ < std::min(tensor.end, offset)) take(std::min({tensor.end, offset, at_ + kPiece}));
    if (at_ < tensor.end) return;
    done_.push_back(digest_.hex());
    if (!finite_) non_finite_.push_back(done_.size() - 1);
    digest_.reset();
    checked_ = at_;
    finite_ = true;
  }
}

void TensorDigests::take(uint64_t end) {
  digest_.update(data_ + at_, end - at_);
  at_ = end;
  if (values_ == Values::ignored || !finite_) return;
  // A file need not align its tensors: an element that the piece cuts waits for the next one.
  const TensorInfo& tensor = *tensors_[done_.size()];
  const uint64_t element = std::max(1u, dtype_bits(tensor.dtype) / 8);
  const uint64_t whole = tensor.begin + (end - tensor.begin) / element * element;
  finite_ = all_finite(tensor.dtype, {data_ + checked_, whole - checked_});
  checked_ = whole;
}

}  // namespace bitctl
