// The arena: shared memory that outlives a trainer. The supervisor creates it and keeps the descriptors; the
// writer allocates and seals it; trainer and writer map it. A slot is the images of all files, one behind the
// other.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "base/strict_json.h"
#include "snapshot/control_page.h"

namespace bitctl {

constexpr uint64_t kArenaPage = 4096;
constexpr uint64_t kMaxWorldSize = 65536;

struct ArenaFile {
  std::string name;           // "model.safetensors", "training.safetensors"
  uint64_t header_bytes = 0;  // region of the safetensors header, length field included; whole pages
  uint64_t data_bytes = 0;    // region of the tensors; whole pages

  bool operator==(const ArenaFile&) const = default;
};

struct ArenaLayout {
  uint32_t gen = 0;
  std::vector<ArenaFile> files;

  uint64_t offset_of(size_t file) const;  // where the file's image starts in a slot
  uint64_t slot_bytes() const;
  bool operator==(const ArenaLayout&) const = default;
};

// {"gen": 1, "files": [{"name": …, "header_bytes": …, "data_bytes": …}]}; regions are rounded up to whole
// pages. Error::invalid for names that are no plain *.safetensors names, no or too many files, or sizes that
// overflow.
Result<ArenaLayout> arena_layout_from(const Json& message);
Json to_json(const ArenaLayout& layout);

// A sealable memfd of that size; nothing is allocated yet.
Result<Fd> create_memory(const std::string& name, uint64_t bytes);
// Allocates every page (ENOMEM here instead of SIGBUS later), then seals the size. It takes 0.2 s a GiB.
Status allocate_memory(int fd, uint64_t bytes);
// Error::invalid unless it is a memfd of exactly that size which can neither shrink nor grow.
Status check_memory(int fd, uint64_t bytes);

// A shared mapping, not inherited by children.
class SharedMemory {
 public:
  static Result<SharedMemory> map(int fd, uint64_t bytes);
  SharedMemory() = default;
  SharedMemory(SharedMemory&& other) noexcept;
  SharedMemory& operator=(SharedMemory&& other) noexcept;
  ~SharedMemory();

  char* data() const { return data_; }
  uint64_t size() const { return size_; }
  explicit operator bool() const { return data_ != nullptr; }

 private:
  char* data_ = nullptr;
  uint64_t size_ = 0;
};

// The control page, initialised (by the supervisor) or checked (by everybody else).
class ControlPage {
 public:
  static Result<std::pair<ControlPage, Fd>> create();
  static Result<ControlPage> map(int fd);

  bitctl_control& operator*() const { return *page(); }
  bitctl_control* operator->() const { return page(); }

 private:
  bitctl_control* page() const { return reinterpret_cast<bitctl_control*>(memory_.data()); }
  SharedMemory memory_;
};

// A slot as one reading saw it; its sizes are not checked yet.
struct SlotView {
  uint32_t rank = 0;
  uint32_t bank = 0;
  uint32_t index = 0;
  uint32_t state = 0;
  uint32_t gen = 0;
  uint64_t seq = 0;
  uint64_t step = 0;
  uint32_t attempt = 0;
  bool final = false;
  uint64_t world_size = 1;  // 1 … kMaxWorldSize
};

std::vector<SlotView> slots_of(const bitctl_control& page);
// The newest slot whose snapshot is complete; nothing where there is none.
std::optional<SlotView> newest_complete(const bitctl_control& page);
// After the trainer's tree is dead: WRITING is discarded.
void discard_unfinished(bitctl_control& page);

}  // namespace bitctl
