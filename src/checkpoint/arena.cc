#include "checkpoint/arena.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <optional>

namespace bitctl {
namespace {

constexpr uint64_t kMaxSlotBytes = uint64_t{1} << 46;  // 64 TiB: far above any machine, far below overflow

bool is_tensor_file_name(std::string_view name) {
  constexpr std::string_view kEnding = ".safetensors";
  if (name.size() <= kEnding.size() || name.size() > 64 || !name.ends_with(kEnding)) return false;
  name.remove_suffix(kEnding.size());
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
}

std::optional<uint64_t> whole_pages(const Json& file, const char* key) {
  const auto bytes = get_unsigned(file, key);
  if (!bytes || *bytes > kMaxSlotBytes) return std::nullopt;
  return (*bytes + kArenaPage - 1) / kArenaPage * kArenaPage;
}

}  // namespace

uint64_t ArenaLayout::offset_of(size_t file) const {
  uint64_t offset = 0;
  for (size_t i = 0; i < file; ++i) offset += files[i].header_bytes + files[i].data_bytes;
  return offset;
}

uint64_t ArenaLayout::slot_bytes() const { return offset_of(files.size()); }

Result<ArenaLayout> arena_layout_from(const Json& message) {
  const auto bad = [](std::string why) { return fail(ErrorKind::invalid, "arena: " + std::move(why)); };
  ArenaLayout layout;
  const auto gen = get_unsigned(message, "gen");
  if (!gen || *gen > UINT32_MAX) return bad("no gen");
  layout.gen = static_cast<uint32_t>(*gen);
  const auto files = message.find("files");
  if (files == message.end() || !files->is_array() || files->empty() || files->size() > BITCTL_MAX_FILES)
    return bad(fmt::format("1 to {} files are possible", BITCTL_MAX_FILES));
  for (const Json& file : *files) {
    const std::string name = get_text(file, "name");
    if (!is_tensor_file_name(name)) return bad("a file name that is not a plain *.safetensors name");
    for (const ArenaFile& earlier : layout.files)
      if (earlier.name == name) return bad("the file " + name + " twice");
    const auto header = whole_pages(file, "header_bytes");
    const auto data = whole_pages(file, "data_bytes");
    if (!header || !data || *header == 0) return bad("sizes of " + name + " out of range");
    layout.files.push_back({name, *header, *data});
    if (layout.slot_bytes() > kMaxSlotBytes) return bad("more than 64 TiB");
  }
  return layout;
}

Json to_json(const ArenaLayout& layout) {
  Json files = Json::array();
  for (const ArenaFile& file : layout.files)
    files.push_back(
        {{"name", file.name}, {"header_bytes", file.header_bytes}, {"data_bytes", file.data_bytes}});
  return {{"gen", layout.gen}, {"files", std::move(files)}};
}

Result<Fd> create_memory(const std::string& name, uint64_t bytes) {
  Fd fd(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return fail_errno("cannot create shared memory");
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) return fail_errno("cannot size shared memory");
  return fd;
}

Status allocate_memory(int fd, uint64_t bytes) {
  int rc = 0;
  while ((rc = ::fallocate(fd, 0, 0, static_cast<off_t>(bytes))) != 0 && errno == EINTR) {
  }
  if (rc != 0) return fail_errno(fmt::format("cannot allocate {} bytes of shared memory", bytes));
  if (::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return fail_errno("cannot seal shared memory");
  return {};
}

Status check_memory(int fd, uint64_t bytes) {
  const int seals = ::fcntl(fd, F_GET_SEALS);
  struct stat st {};
  if (seals < 0 || (seals & (F_SEAL_SHRINK | F_SEAL_GROW)) != (F_SEAL_SHRINK | F_SEAL_GROW))
    return fail(ErrorKind::invalid, "a descriptor that is not sealed shared memory");
  if (::fstat(fd, &st) != 0 || static_cast<uint64_t>(st.st_size) != bytes)
    return fail(ErrorKind::invalid,
                fmt::format("shared memory of {} bytes where {} are due", st.st_size, bytes));
  return {};
}

Result<SharedMemory> SharedMemory::map(int fd, uint64_t bytes) {
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) return fail_errno("cannot map shared memory");
  ::madvise(data, bytes, MADV_DONTFORK);
  SharedMemory memory;
  memory.data_ = static_cast<char*>(data);
  memory.size_ = bytes;
  return memory;
}

SharedMemory::SharedMemory(SharedMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

SharedMemory& SharedMemory::operator=(SharedMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

SharedMemory::~SharedMemory() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

Result<std::pair<ControlPage, Fd>> ControlPage::create() {
  auto fd = create_memory("bitctl-control", BITCTL_CONTROL_BYTES);
  if (!fd) return forward(std::move(fd));
  if (auto status = allocate_memory(fd->get(), BITCTL_CONTROL_BYTES); !status)
    return forward(std::move(status));
  auto memory = SharedMemory::map(fd->get(), BITCTL_CONTROL_BYTES);
  if (!memory) return forward(std::move(memory));
  ControlPage page;
  page.memory_ = std::move(*memory);
  page->version = BITCTL_CONTROL_VERSION;
  page->bytes = sizeof(bitctl_control);
  bitctl_store64(&page->magic, BITCTL_CONTROL_MAGIC);
  return std::pair(std::move(page), std::move(*fd));
}

Result<ControlPage> ControlPage::map(int fd) {
  if (auto status = check_memory(fd, BITCTL_CONTROL_BYTES); !status) return forward(std::move(status));
  auto memory = SharedMemory::map(fd, BITCTL_CONTROL_BYTES);
  if (!memory) return forward(std::move(memory));
  ControlPage page;
  page.memory_ = std::move(*memory);
  if (page->magic != BITCTL_CONTROL_MAGIC || page->version != BITCTL_CONTROL_VERSION ||
      page->bytes != sizeof(bitctl_control))
    return fail(ErrorKind::invalid, "the control page is of another version of bitctl");
  return page;
}

std::vector<SlotView> slots_of(const bitctl_control& page) {
  std::vector<SlotView> views;
  for (uint32_t bank = 0; bank < BITCTL_BANKS; ++bank) {
    for (uint32_t index = 0; index < BITCTL_SLOTS; ++index) {
      const bitctl_slot& slot = page.slots[bank][index];
      const uint32_t state = bitctl_load32(&slot.state);
      views.push_back({0, bank, index, state, bitctl_load32(&slot.gen), bitctl_load64(&slot.seq),
                       bitctl_load64(&slot.step), bitctl_load32(&slot.attempt),
                       bitctl_load32(&slot.final) == 1,
                       std::clamp<uint64_t>(bitctl_load64(&slot.world_size), 1, kMaxWorldSize)});
    }
  }
  return views;
}

std::optional<SlotView> newest_complete(const bitctl_control& page) {
  std::optional<SlotView> best;
  for (const SlotView& slot : slots_of(page))
    if (bitctl_slot_is_complete(slot.state) && (!best || slot.seq > best->seq)) best = slot;
  return best;
}

void discard_unfinished(bitctl_control& page) {
  for (auto& bank : page.slots)
    for (auto& slot : bank) bitctl_slot_move(&slot, BITCTL_SLOT_WRITING, BITCTL_SLOT_FREE);
}

}  // namespace bitctl
