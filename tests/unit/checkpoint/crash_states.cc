#include "checkpoint/crash_states.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <random>
#include <unordered_set>

#include "checkpoint/catalog.h"
#include "checkpoint/digest.h"
#include "checkpoint/folders.h"
#include "checkpoint/load.h"
#include "step_image.h"
#include "temporary_folder.h"
#include "tree_of_files.h"

namespace bitctl {
namespace {

std::string digest_of_tree(const Tree& tree) {
  Digest digest;
  for (const auto& [path, content] : tree) {
    const std::string head =
        fmt::format("{}\n{}\n", path, content ? std::to_string(content->size()) : "folder");
    digest.update(head.data(), head.size());
    if (content) digest.update(content->data(), content->size());
  }
  return digest.hex();
}

// Bit by bit the same as in the file that load_step reads.
bool loads(const StepFolder& folder, const Manifest& manifest, const Tree& step) {
  const auto layout = layout_of(manifest, 1);
  if (!layout) return false;
  const std::unique_ptr<char, void (*)(void*)> memory(
      static_cast<char*>(std::aligned_alloc(kArenaPage, layout->slot_bytes())), std::free);
  bitctl_slot slot{};
  if (!load_step(folder, manifest, *layout, memory.get(), &slot)) return false;
  for (size_t i = 0; i < manifest.files.size(); ++i)
    if (std::string_view(memory.get() + layout->offset_of(i), manifest.files[i].bytes) !=
        *step.at(manifest.files[i].name))
      return false;
  return true;
}

// Lays the states out in a real folder and lets the real code recover.
class Judge {
 public:
  explicit Judge(const CrashCase& crash_case) : case_(crash_case), folder_(in_memory()) {
    for (const auto& [step, content] : case_.good)
      if (without_manifest(below(case_.before, step_folder_name(step))) == content)
        newest_before_ = std::max(newest_before_, step);
  }

  void look_at(const Tree& state, std::optional<uint64_t> acknowledged, const std::string& where) {
    ++counts_.states;
    if (!seen_.insert(fmt::format("{} {}", acknowledged.value_or(0), digest_of_tree(state))).second) return;
    ++counts_.distinct;
    const std::string path = folder_ / std::to_string(counts_.distinct);
    lay_out(state, path);
    const uint64_t found = recover(state, path, where);
    if (found == 0 && (newest_before_ > 0 || acknowledged))
      tell(counts_.none, "nothing good left", where, state);
    if (found != 0 && found < std::max(newest_before_, acknowledged.value_or(0)))
      tell(counts_.lost, fmt::format("step {} is the newest", found), where, state);
    if (acknowledged && found == *acknowledged &&
        without_manifest(tree_of_files(path + "/" + step_folder_name(found))) != case_.acknowledged)
      tell(counts_.lost, "the acknowledged step holds something else", where, state);
    if (counts_.distinct % 8 == 0 && !save_step(path, TestStep(1000, 'z').image, {}))
      tell(counts_.stuck, "the next save fails", where, state);
    std::filesystem::remove_all(path);
  }
  const CrashCounts& counts() const { return counts_; }

 private:
  // As the writer at its start and the resume do it: sweep, then the newest that verifies. 0: nothing.
  uint64_t recover(const Tree& state, const std::string& path, const std::string& where) {
    sweep_stages(path);
    uint64_t found = 0;
    for (const StepFolder& folder : step_folders(path)) {
      const Tree step = tree_of_files(folder.path);
      const bool good = case_.good.contains({folder.step, without_manifest(step)});
      const auto inspected = inspect_step(folder);
      const auto verified = verify_step(folder);
      if (verified && (!good || !loads(folder, *verified, step)))
        tell(counts_.torn, folder.path + " verifies and is wrong", where, state);
      else if (inspected && !verified)  // what retention and `ls` count as good
        tell(counts_.torn, "looks good and is not: " + verified.error().message, where, state);
      else if (!verified && step != below(case_.before, step_folder_name(folder.step)))
        tell(counts_.half, verified.error().message, where, state);
      if (verified && found == 0) found = folder.step;
    }
    return found;
  }

  void tell(uint64_t& counter, const std::string& what, const std::string& where, const Tree& state) {
    ++counter;
    if (!counts_.first.empty()) return;
    counts_.first = fmt::format("{}: {}; {}; found:", case_.name, where, what);
    for (const auto& [path, content] : state)
      counts_.first += fmt::format(" {}{}", path, content ? fmt::format("({})", content->size()) : "/");
  }

  const CrashCase& case_;
  TemporaryFolder folder_;
  uint64_t newest_before_ = 0;
  std::unordered_set<std::string> seen_;
  CrashCounts counts_;
};

// Every prefix (what a journal would leave), each effect alone, each one left out.
std::vector<std::vector<bool>> telling_subsets(size_t pending) {
  std::vector<std::vector<bool>> subsets;
  for (size_t n = 0; n <= pending; ++n) {
    std::vector<bool> prefix(pending, false);
    std::fill_n(prefix.begin(), n, true);
    subsets.push_back(prefix);
  }
  for (size_t n = 0; n < pending; ++n)
    for (const bool others : {false, true}) {
      subsets.emplace_back(pending, others);
      subsets.back()[n] = !others;
    }
  return subsets;
}

std::vector<std::vector<bool>> subsets_of(size_t pending, const CrashLimits& limits,
                                          std::mt19937_64& random) {
  std::vector<std::vector<bool>> subsets;
  if (pending <= limits.all_up_to) {
    for (uint64_t bits = 0; bits < uint64_t{1} << pending; ++bits) {
      subsets.emplace_back(pending);
      for (size_t n = 0; n < pending; ++n) subsets.back()[n] = bits >> n & 1;
    }
    return subsets;
  }
  subsets = telling_subsets(pending);
  for (size_t i = 0; i < limits.random; ++i) {
    const uint64_t tenths = 1 + random() % 9;
    subsets.emplace_back(pending);
    for (size_t n = 0; n < pending; ++n) subsets.back()[n] = random() % 10 < tenths;
  }
  return subsets;
}

}  // namespace

CrashCounts& CrashCounts::operator+=(const CrashCounts& other) {
  states += other.states;
  distinct += other.distinct;
  torn += other.torn;
  half += other.half;
  none += other.none;
  lost += other.lost;
  stuck += other.stuck;
  if (first.empty()) first = other.first;
  return *this;
}

CrashCounts try_every_crash(const CrashCase& crash_case, const CrashLimits& limits) {
  CrashModel model(crash_case.before);
  Judge judge(crash_case);
  std::mt19937_64 random(limits.seed);
  std::optional<uint64_t> acknowledged;
  for (size_t done = 0; done <= crash_case.log.size(); ++done) {
    if (done > 0) {
      const FileOp& op = crash_case.log[done - 1];
      model.apply(op);
      if (op.kind == FileOp::Kind::note && op.path.starts_with("acknowledged "))
        acknowledged = std::stoull(op.path.substr(13));
    }
    if (limits.one_is_enough && judge.counts().violations() > 0) break;
    if (done < crash_case.from) continue;
    const std::string where = fmt::format("after {} of {} calls", done, crash_case.log.size());
    for (const std::vector<bool>& survives : subsets_of(model.pending(), limits, random))
      for (const char junk : {'\0', '\xa5'}) judge.look_at(model.state(survives, junk), acknowledged, where);
  }
  return judge.counts();
}

}  // namespace bitctl
