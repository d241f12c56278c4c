#include "checkpoint/crash_model.h"

#include <algorithm>
#include <functional>
#include <stdexcept>

#include "base/replace_file.h"

namespace bitctl {
namespace {

constexpr uint64_t kPiece = 4096;
constexpr size_t kRoot = 0;

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

}  // namespace

CrashModel::CrashModel(const Tree& durable) : before_(1), seen_(1) {
  before_[kRoot].folder = seen_[kRoot].folder = true;
  for (const auto& [path, content] : durable) {  // a folder sorts before what is in it
    const Inode inode = add(!content);
    const Entry at = entry(path, inode);
    before_[at.folder].entries[at.name] = seen_[at.folder].entries[at.name] = inode;
    if (content) before_[inode].bytes = *content;
  }
}

CrashModel::Inode CrashModel::add(bool folder) {
  before_.push_back({.folder = folder});
  seen_.push_back({.folder = folder});
  return seen_.size() - 1;
}

CrashModel::Inode CrashModel::inode_of(const std::string& path) const {
  Inode inode = kRoot;
  for (size_t begin = 0; begin < path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const auto found = seen_[inode].entries.find(path.substr(begin, end - begin));
    if (found == seen_[inode].entries.end()) throw std::logic_error("not in the model: " + path);
    inode = found->second;
    begin = end + 1;
  }
  return inode;
}

CrashModel::Entry CrashModel::entry(const std::string& path, std::optional<Inode> inode) const {
  return {inode_of(parent_of(path)), filename_of(path), inode};
}

bool CrashModel::Effect::concerns(Inode inode) const {
  if (kind != Kind::entries) return file == inode;
  return std::any_of(entries.begin(), entries.end(), [&](const Entry& e) { return e.folder == inode; });
}

void CrashModel::change(std::vector<Entry> entries) {
  effects_.push_back({.kind = Effect::Kind::entries, .entries = std::move(entries)});
  perform(effects_.back(), seen_, '\0');
}

void CrashModel::write(Inode file, uint64_t offset, const std::string& bytes) {
  effects_.push_back({.kind = Effect::Kind::size_at_least, .file = file, .offset = offset + bytes.size()});
  const uint64_t piece = std::min<uint64_t>(kPiece, std::max<uint64_t>(1, (bytes.size() + 1) / 2));
  for (uint64_t at = 0; at < bytes.size(); at += piece)
    effects_.push_back(
        {.kind = Effect::Kind::bytes, .file = file, .offset = offset + at, .bytes = bytes.substr(at, piece)});
}

void CrashModel::sync(Inode inode, bool failed) {
  for (Effect& effect : effects_)
    if (!effect.durable && effect.concerns(inode)) {
      if (failed) effect.doubtful = true;
      effect.durable = !effect.doubtful;
    }
}

void CrashModel::apply(const FileOp& op) {
  using Kind = FileOp::Kind;
  switch (op.kind) {
    case Kind::open: {
      const Inode inode = op.created ? add(false) : inode_of(op.path);
      if (op.created) change({entry(op.path, inode)});
      handles_[op.handle] = inode;
      break;
    }
    case Kind::write:
      return write(handles_.at(op.handle), op.offset, op.bytes);
    case Kind::size:
      effects_.push_back({.kind = Effect::Kind::size, .file = handles_.at(op.handle), .offset = op.size});
      break;
    case Kind::size_at_least:
      effects_.push_back(
          {.kind = Effect::Kind::size_at_least, .file = handles_.at(op.handle), .offset = op.size});
      break;
    case Kind::fsync:
      return sync(handles_.at(op.handle), op.failed);
    case Kind::mkdir:
      return change({entry(op.path, add(true))});
    case Kind::link:
      return change({entry(op.to, inode_of(op.path))});
    case Kind::rename:
      return change({entry(op.path, std::nullopt), entry(op.to, inode_of(op.path))});
    case Kind::exchange:
      return change({entry(op.path, inode_of(op.to)), entry(op.to, inode_of(op.path))});
    case Kind::unlink:
    case Kind::rmdir:
      return change({entry(op.path, std::nullopt)});
    case Kind::note:
      break;
  }
}

void CrashModel::perform(const Effect& effect, Nodes& nodes, char junk) {
  std::string& bytes = nodes[effect.file].bytes;
  switch (effect.kind) {
    case Effect::Kind::entries:
      for (const Entry& e : effect.entries) {
        if (e.inode)
          nodes[e.folder].entries[e.name] = *e.inode;
        else
          nodes[e.folder].entries.erase(e.name);
      }
      break;
    case Effect::Kind::bytes:  // what lies behind the end is not seen
      if (effect.offset < bytes.size()) {
        const uint64_t size = std::min<uint64_t>(effect.bytes.size(), bytes.size() - effect.offset);
        bytes.replace(effect.offset, size, effect.bytes, 0, size);
      }
      break;
    case Effect::Kind::size:
      bytes.resize(effect.offset, junk);
      break;
    case Effect::Kind::size_at_least:
      bytes.resize(std::max<uint64_t>(bytes.size(), effect.offset), junk);
      break;
  }
}

size_t CrashModel::pending() const {
  return static_cast<size_t>(
      std::count_if(effects_.begin(), effects_.end(), [](const Effect& e) { return !e.durable; }));
}

Tree CrashModel::state(const std::vector<bool>& survives, char junk) const {
  Nodes nodes = before_;
  size_t at = 0;
  for (const Effect& effect : effects_)
    if (effect.durable || survives[at++]) perform(effect, nodes, effect.durable ? '\0' : junk);
  return tree_of(nodes);
}

Tree CrashModel::seen() const { return state(std::vector<bool>(pending(), true)); }

Tree CrashModel::tree_of(const Nodes& nodes) {
  Tree tree;
  const std::function<void(Inode, const std::string&)> walk = [&](Inode inode, const std::string& prefix) {
    for (const auto& [name, child] : nodes[inode].entries) {
      const Node& node = nodes[child];
      tree[prefix + name] = node.folder ? std::nullopt : std::optional(node.bytes);
      if (node.folder) walk(child, prefix + name + "/");
    }
  };
  walk(kRoot, "");
  return tree;
}

}  // namespace bitctl
