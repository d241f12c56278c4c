// The saves whose logs are replayed: by the real code, and by protocols that are known to be wrong.
#include <fmt/format.h>

#include <functional>

#include "checkpoint/catalog.h"
#include "checkpoint/crash_states.h"
#include "checkpoint/folders.h"
#include "checkpoint/retention.h"
#include "failing_file_ops.h"
#include "step_image.h"
#include "temporary_folder.h"
#include "tree_of_files.h"

namespace bitctl {
namespace {

constexpr size_t kTwoPages = 1500;  // elements, so that the pieces stay few

// NFS knows neither RENAME_NOREPLACE nor RENAME_EXCHANGE.
class PlainRenames : public FileOps {
 public:
  int rename2(const std::string&, const std::string&, unsigned) override {
    errno = EINVAL;
    return -1;
  }
};

// One kind of save: what stands there before, and the step that is saved over it.
struct Kind {
  std::string name;
  std::vector<std::pair<uint64_t, char>> standing;
  uint64_t step;
  char fill;
  std::function<void(const TemporaryFolder&)> prepare = [](const auto&) {};
  bool side_files = false;
  bool retention = false;
  bool plain_renames = false;
  bool frozen = false;  // a part of the model, which is linked
  size_t elements = kTwoPages;

  TestStep step_of(uint64_t number, char content) const {
    return frozen ? TestStep::with_frozen(number, content, elements) : TestStep(number, content, elements);
  }
};

Kind with_frozen(Kind kind) {
  kind.name += ", a part linked";
  kind.frozen = true;
  return kind;
}

std::vector<Kind> kinds() {
  const auto tear = [](const TemporaryFolder& folder) {
    std::filesystem::resize_file(folder / "step-000000002/training.safetensors", 4096);
  };
  return {
      {"first save", {}, 1, 'a'},
      {"save", {{1, 'a'}}, 2, 'b'},
      {"save with side files",
       {{1, 'a'}},
       2,
       'b',
       [](const auto& f) { f.write(".side/abc/config.json", "{\"a\": 1}\n"); },
       true},
      {"save and retention", {{1, 'a'}, {2, 'b'}, {3, 'c'}}, 4, 'd', [](const auto&) {}, false, true},
      {"over a bad folder", {{1, 'a'}, {2, 'b'}}, 2, 'c', tear},
      {"of a step that stands", {{1, 'a'}, {2, 'b'}}, 2, 'c'},
      {"of the only step, which stands", {{2, 'b'}}, 2, 'c'},
      {"the same again", {{1, 'a'}, {2, 'b'}}, 2, 'b'},
      {"without rename flags", {{1, 'a'}}, 2, 'b', [](const auto&) {}, false, false, true},
      {"of the only step, without rename flags", {{2, 'b'}}, 2, 'c', [](const auto&) {}, false, false, true},
      {"over a bad folder, without rename flags", {{1, 'a'}, {2, 'b'}}, 2, 'c', tear, false, false, true},
      with_frozen({"save", {{1, 'a'}}, 2, 'b'}),
      with_frozen(
          {"save and retention", {{1, 'a'}, {2, 'b'}, {3, 'c'}}, 4, 'd', [](const auto&) {}, false, true}),
      with_frozen({"of the only step, which stands", {{2, 'b'}}, 2, 'c'}),
  };
}

FileOps& inner_of(const Kind& kind) {
  static PlainRenames plain;
  return kind.plain_renames ? plain : system_file_ops();
}

void prepare(const Kind& kind, const TemporaryFolder& folder) {
  for (const auto& [step, fill] : kind.standing)
    if (!save_step(folder.path(), kind.step_of(step, fill).image, {})) std::abort();
  kind.prepare(folder);
}

bool save(const Kind& kind, const TemporaryFolder& folder, RecordingFileOps& ops) {
  TestStep step = kind.step_of(kind.step, kind.fill);
  if (kind.side_files) step.image.side_folder = folder / ".side/abc";
  SaveOptions options;
  options.ops = &ops;
  options.on_committed = [&](const Saved&) { ops.note(fmt::format("acknowledged {}", kind.step)); };
  if (kind.retention)
    options.retain = [&] { retain(folder.path(), {.keep_last = 2}, {"test-run", {}, {kind.step}}, ops); };
  return save_step(folder.path(), step.image, options).has_value();
}

void add_good(const TemporaryFolder& folder, CrashCase& found) {
  for (const StepFolder& step : step_folders(folder.path()))
    if (verify_step(step)) found.good.insert({step.step, without_manifest(tree_of_files(step.path))});
}

CrashCase case_of(const Kind& kind) {
  const TemporaryFolder folder(in_memory());
  prepare(kind, folder);
  CrashCase made{.name = kind.name, .elements = kind.elements, .before = tree_of_files(folder.path())};
  add_good(folder, made);
  RecordingFileOps ops(folder.path(), inner_of(kind));
  if (!save(kind, folder, ops)) std::abort();
  made.log = ops.log();
  add_good(folder, made);
  made.acknowledged = without_manifest(tree_of_files(folder / step_folder_name(kind.step)));
  return made;
}

// What a program writes that overwrites its only checkpoint, and so on: through the same calls, by other
// rules.
struct Twin {
  std::string name;
  std::vector<std::pair<uint64_t, char>> standing;
  // The files of the new step 2 are given.
  std::function<void(const std::string& folder, const Tree& files, RecordingFileOps& ops)> save;
};

void put(const std::string& path, const std::string& content, int flags, bool sync, FileOps& ops) {
  const int fd = ops.open(path, O_WRONLY | flags, 0666);
  ops.pwrite(fd, content.data(), content.size(), 0);
  if (sync) ops.fsync(fd);
  ops.close(fd);
}

void sync(const std::string& folder, FileOps& ops) {
  const int fd = ops.open(folder, O_RDONLY | O_DIRECTORY, 0);
  ops.fsync(fd);
  ops.close(fd);
}

void put_all(const std::string& stage, const Tree& files, bool sync_files, FileOps& ops) {
  ops.mkdir(stage, 0777);
  for (const auto& [name, content] : files)
    put(stage + "/" + name, *content, O_CREAT | O_EXCL, sync_files, ops);
}

std::vector<Twin> twins() {
  const auto acknowledge = [](RecordingFileOps& ops) { ops.note("acknowledged 2"); };
  return {
      {"in place",
       {{2, 'a'}},
       [=](const std::string& folder, const Tree& files, RecordingFileOps& ops) {
         for (const auto& [name, content] : files)
           put(folder + "/step-000000002/" + name, *content, 0, true, ops);
         acknowledge(ops);
       }},
      {"in place, cut first",
       {{2, 'a'}},
       [=](const std::string& folder, const Tree& files, RecordingFileOps& ops) {
         for (const auto& [name, content] : files)
           put(folder + "/step-000000002/" + name, *content, O_CREAT | O_TRUNC, true, ops);
         acknowledge(ops);
       }},
      {"rename without fsync",
       {{1, 'a'}},
       [=](const std::string& folder, const Tree& files, RecordingFileOps& ops) {
         put_all(folder + "/.tmp-x", files, false, ops);
         ops.rename(folder + "/.tmp-x", folder + "/step-000000002");
         acknowledge(ops);
       }},
      {"no fsync of the folder",
       {{1, 'a'}},
       [=](const std::string& folder, const Tree& files, RecordingFileOps& ops) {
         put_all(folder + "/.tmp-x", files, true, ops);
         sync(folder + "/.tmp-x", ops);
         ops.rename(folder + "/.tmp-x", folder + "/step-000000002");
         acknowledge(ops);
       }},
      {"retention before the folder's fsync",
       {{1, 'a'}},
       [=](const std::string& folder, const Tree& files, RecordingFileOps& ops) {
         put_all(folder + "/.tmp-x", files, true, ops);
         sync(folder + "/.tmp-x", ops);
         ops.rename(folder + "/.tmp-x", folder + "/step-000000002");
         static_cast<void>(remove_tree(folder + "/step-000000001", ops));
         sync(folder, ops);
         acknowledge(ops);
       }},
      {"a link to what was never synced",
       {{1, 'a'}},
       [=](const std::string& folder, const Tree& files, RecordingFileOps& ops) {
         const std::string stage = folder + "/.tmp-x";
         put(folder + "/.shared", *files.at(kModelFile), O_CREAT | O_EXCL, false, ops);
         Tree others = files;
         others.erase(kModelFile);
         put_all(stage, others, true, ops);
         ops.link(folder + "/.shared", stage + "/" + kModelFile);
         sync(stage, ops);
         ops.rename(stage, folder + "/step-000000002");
         sync(folder, ops);
         acknowledge(ops);
       }},
      {"manifest first",
       {{1, 'a'}},
       [=](const std::string& folder, const Tree& files, RecordingFileOps& ops) {
         const std::string step = folder + "/step-000000002";
         ops.mkdir(step, 0777);
         put(step + "/" + kManifestName, *files.at(kManifestName), O_CREAT | O_EXCL, true, ops);
         for (const auto& [name, content] : files)
           if (name != kManifestName) put(step + "/" + name, *content, O_CREAT | O_EXCL, true, ops);
         sync(step, ops);
         sync(folder, ops);
         acknowledge(ops);
       }},
  };
}

}  // namespace

std::vector<CrashCase> save_cases(size_t elements) {
  std::vector<CrashCase> cases;
  for (Kind& kind : kinds()) {
    kind.elements = elements;
    cases.push_back(case_of(kind));
  }
  return cases;
}

std::vector<CrashCase> killed_and_saved_again(const CrashCase& crash_case, size_t every) {
  const auto all = kinds();
  const auto kind =
      std::find_if(all.begin(), all.end(), [&](const Kind& k) { return k.name == crash_case.name; });
  std::vector<CrashCase> cases;
  for (size_t calls = 1; calls <= crash_case.log.size(); calls += every) {
    CrashCase killed = crash_case;
    killed.name = fmt::format("{}, killed after {} calls, and again", crash_case.name, calls);
    killed.log.resize(calls);
    killed.from = calls + 1;
    CrashModel model(killed.before);
    for (const FileOp& op : killed.log) model.apply(op);
    const TemporaryFolder folder(in_memory());
    lay_out(model.seen(), folder.path());
    RecordingFileOps ops(folder.path(), inner_of(*kind));
    sweep_stages(folder.path(), ops);
    if (!save(*kind, folder, ops)) std::abort();
    killed.log.insert(killed.log.end(), ops.log().begin(), ops.log().end());
    cases.push_back(std::move(killed));
  }
  return cases;
}

std::vector<CrashCase> failing_cases(int error, int every) {
  std::vector<CrashCase> cases;
  for (const Kind& kind : kinds()) {
    if (kind.plain_renames) continue;
    const CrashCase whole = case_of(kind);
    for (int n = 1;; ++n) {
      const TemporaryFolder folder(in_memory());
      prepare(kind, folder);
      CrashCase failing = whole;
      failing.name = fmt::format("{}, call {} fails", kind.name, n);
      failing.before = tree_of_files(folder.path());
      FailingFileOps failing_ops(n, error);
      RecordingFileOps ops(folder.path(), failing_ops);
      save(kind, folder, ops);
      if (!failing_ops.has_failed()) break;
      const std::string& failed = failing_ops.calls()[static_cast<size_t>(n) - 1];
      if (n % every != 0 && failed != "fsync" && !failed.starts_with("rename")) continue;
      failing.log = ops.log();
      // Until then it is a save like any other. Not in the log: what changes nothing, and the two calls that
      // may be refused anyway.
      const auto calls = failing_ops.calls().begin();
      const auto silent = std::count_if(calls, calls + n - 1, [](const std::string& call) {
        return call == "close" || call == "pread" || call == "fadvise";
      });
      failing.from = static_cast<size_t>(std::max<ptrdiff_t>(0, n - 3 - silent));
      cases.push_back(std::move(failing));
    }
  }
  return cases;
}

std::vector<CrashCase> bad_twins() {
  std::vector<CrashCase> cases;
  for (const Twin& twin : twins()) {
    const TemporaryFolder folder(in_memory());
    const TemporaryFolder elsewhere(in_memory());
    for (const auto& [step, fill] : twin.standing)
      if (!save_step(folder.path(), TestStep(step, fill, kTwoPages).image, {})) std::abort();
    if (!save_step(elsewhere.path(), TestStep(2, 'b', kTwoPages).image, {})) std::abort();
    const Tree files = tree_of_files(elsewhere / step_folder_name(2));
    CrashCase made{.name = twin.name, .before = tree_of_files(folder.path())};
    add_good(folder, made);
    add_good(elsewhere, made);
    made.acknowledged = without_manifest(files);
    RecordingFileOps ops(folder.path());
    twin.save(folder.path(), files, ops);
    made.log = ops.log();
    cases.push_back(std::move(made));
  }
  return cases;
}

}  // namespace bitctl
