// What a file system still has to hold after the power went, as little of it as POSIX promises. Pure: a log
// of calls in, the trees that may be found afterwards out.
//
// Every call changes what running programs see at once. On the disk it is an effect, or several:
//   write            one effect for every 4 KiB piece (at least two), and one for the size that it reaches
//   ftruncate,       one effect on the size; what a size uncovers and no write has filled reads as zeros, or
//   as junk fallocate create, mkdir,   one effect on the entries of the folders that it touches: a rename is
//   atomic, an exchange too link, rename, unlink
// An effect is sure to be on the disk once an fsync of its file, or of one of its folders, that began after
// it has succeeded. Until then it may be there or not, each on its own, in any combination: also a later one
// without an earlier. An fsync of a file does not make its name durable, nor does one of a folder the content
// of its files. A failed fsync promises nothing, and nor does a later one for the effects that it was to
// cover: the kernel may have dropped them. Journaling file systems reach far fewer states, since they keep
// the order of names.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "recording_file_ops.h"

namespace bitctl {

// Every path below the root; no content: a folder.
using Tree = std::map<std::string, std::optional<std::string>>;

class CrashModel {
 public:
  // `durable` is on the disk.
  explicit CrashModel(const Tree& durable);

  void apply(const FileOp& op);

  // How many effects may or may not have reached the disk.
  size_t pending() const;
  // What is found if exactly these of the pending effects (in the order of the calls) have; `junk` fills what
  // was never written.
  Tree state(const std::vector<bool>& survives, char junk = '\0') const;
  // What running programs see.
  Tree seen() const;

 private:
  using Inode = size_t;
  struct Node {
    bool folder = false;
    std::string bytes;
    std::map<std::string, Inode> entries;
  };
  struct Entry {
    Inode folder;
    std::string name;
    std::optional<Inode> inode;  // none: the name goes
  };
  struct Effect {
    enum class Kind { entries, bytes, size, size_at_least };
    Kind kind;
    std::vector<Entry> entries = {};
    Inode file = 0;
    uint64_t offset = 0;  // or the size
    std::string bytes = {};
    bool durable = false;
    bool doubtful = false;  // an fsync that was to cover it has failed

    bool concerns(Inode inode) const;
  };
  using Nodes = std::vector<Node>;

  static void perform(const Effect& effect, Nodes& nodes, char junk);
  static Tree tree_of(const Nodes& nodes);
  Inode add(bool folder);
  Inode inode_of(const std::string& path) const;
  Entry entry(const std::string& path, std::optional<Inode> inode) const;
  void change(std::vector<Entry> entries);
  void write(Inode file, uint64_t offset, const std::string& bytes);
  void sync(Inode inode, bool failed);

  Nodes before_;  // as it was, with the new inodes, empty
  Nodes seen_;    // its names alone are kept up to date
  std::vector<Effect> effects_;
  std::map<int, Inode> handles_;
};

}  // namespace bitctl
