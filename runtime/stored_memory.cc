#include "runtime/stored_memory.h"

#include <algorithm>

#include "memory/hash.h"
#include "memory/list_index.h"
#include "runtime/local_settings.h"
#include "runtime/session.h"

namespace memlane {

namespace {

constexpr std::size_t kLongestText = 1000;  // of a setting in a memory file, about

/// How a kind of layers rotates, for the header. LongRoPE's lists may be too long for it and become a fingerprint.
std::string rope_text(const RopeScaling& scaling) {
  const std::string text = to_text(scaling);
  if (text.size() <= kLongestText) return text;
  return fmt::format("{}:{}{}", name_of(scaling.method), kRopeFingerprint, Fingerprint().add(text).hex());
}

/// Stored keys depend on how every layer below was rotated. The base of the config is part of the model's fingerprint,
/// so nothing is said where nothing but that base is used: files from before there was scaling say nothing.
void record_rope(const ModelConfig& config, const MemorySettings& settings, MemoryFileHeader& header) {
  const std::string unscaled = to_text(RopeScaling{.theta = config.rope.theta});
  const auto record = [&](const char* name, const RopeScaling& used, const RopeScaling& of_config, bool in_any_case) {
    if (to_text(used) == unscaled && to_text(of_config) == unscaled && !in_any_case) return;
    header.settings[name] = rope_text(used);
  };
  // A window beyond the model's limit is allowed only to those who say how they rotate.
  record("rope", settings.rope, config.rope, settings.window > config.max_position_embeddings);
  record("memory rope", settings.memory_rope, config.memory_rope, false);
}

/// How windows were read, where it is not the plain way. What would carry over from one window to the next is not here:
/// such windows are not stored.
void record_local_settings(const ModelConfig& config, const MemorySettings& settings, MemoryFileHeader& header) {
  if (settings.memory_window != settings.window) {
    header.settings["memory window"] = std::to_string(settings.memory_window);
  }
  if (settings.capped_distance > 0) header.settings["capped distance"] = std::to_string(settings.capped_distance);
  if (changes_with_length(config, settings, LayerKind::plain) ||
      changes_with_length(config, settings, LayerKind::memory)) {
    header.settings["dynamic mode"] = name_of(settings.dynamic_mode);
  }
}

}  // namespace

MemoryFileHeader memory_header(const Model& model, const std::string& tokenizer_fingerprint,
                               const MemorySettings& settings, const Lookup& lookup) {
  MemoryFileHeader header;
  header.model_fingerprint = model.fingerprint;
  header.tokenizer_fingerprint = tokenizer_fingerprint;
  header.model_name = std::filesystem::absolute(model.folder).lexically_normal().filename().string();
  if (header.model_name.empty()) {  // the path ended in a slash
    header.model_name = std::filesystem::absolute(model.folder).lexically_normal().parent_path().filename().string();
  }
  header.shape = entry_shape(model.config, settings);
  header.window = settings.window;
  header.mem_positionals = settings.mem_positionals;
  header.compute = name_of(model.precision.compute);
  if (model.precision.weights != format_of(model.precision.compute)) {
    header.settings["weights"] = name_of(model.precision.weights);
  }
  header.lookup = lookup.name();
  header.top_k = lookup.kind == Lookup::Kind::dense ? 0 : lookup.top_k;
  if (!lookup.parameters.empty()) header.settings["index parameters"] = lookup.parameters;
  record_rope(model.config, settings, header);
  record_local_settings(model.config, settings, header);
  return header;
}

void require_same_meaning(const MemoryFile& file, const MemoryFileHeader& asked_for) {
  const std::string found = differences(file.header(), asked_for);
  if (!found.empty()) {
    input_error(
        "{}: this memory was made with another model or other settings: {}; use those of the file, or ingest into a "
        "new file",
        file.path().string(), found);
  }
}

std::optional<EvictionPolicy> stored_eviction(const MemoryFile& file) {
  const auto& settings = file.header().settings;
  const auto found = settings.find(kEviction);
  if (found == settings.end()) return std::nullopt;
  const std::optional<EvictionPolicy> policy = eviction_policy(found->second);
  const std::size_t window = file.header().window;
  if (!policy || policy->entries % window != 0) {
    input_error("{}: expected \"{}\" in its header to be such as \"{}\", found \"{}\"; ingest into a new file",
                file.path().string(), kEviction, to_text({EvictionPolicy::Rule::oldest, window}), found->second);
  }
  return policy;
}

namespace {

/// Whether a document's stored index serves a lookup.
bool has_index_for(const MemoryFile& file, const StoredDocument& document, const Lookup& lookup) {
  const bool own_index = lookup.has_index() && lookup.name() == file.header().lookup;
  MEMLANE_EXPECTS(file.is_verified(document.info.id));
  return lookup.has_index() && !document.indexes.blobs.empty() && is_index_of(lookup, document.indexes.blobs.front()) &&
         (own_index || lookup.has_lists());
}

}  // namespace

DocumentMemory load_document(CpuExec& exec, const MemoryFile& file, const StoredDocument& document,
                             const Lookup& lookup, const Watch& watch) {
  MEMLANE_EXPECTS(file.is_verified(document.info.id));
  DocumentMemory memory(file.header().shape, lookup);
  const bool own_index = lookup.has_index() && lookup.name() == file.header().lookup;
  bool has_index = has_index_for(file, document, lookup);
  for (const StoredWindow& window : document.windows) {
    memory.append(Segment(file.header().shape, window.count, window.entries));
    if (has_index && memory.entries() < document.indexes.entries_covered) continue;
    if (has_index) memory.load_indexes(document.indexes.blobs, document.indexes.entries_covered);
    has_index = false;
    // One at a time, as when they were read: what an index becomes depends on when it trained and on what came
    // together.
    if (own_index) memory.update_indexes(exec, watch);
  }
  memory.update_indexes(exec, watch);
  return memory;
}

DocumentMemory load_seen(const MemoryFile& file, const StoredDocument& document, const Lookup& lookup) {
  MEMLANE_EXPECTS(file.is_verified(document.info.id));
  DocumentMemory memory(file.header().shape, lookup);
  for (const SeenWindow& seen : document.windows.back().seen) {
    const StoredWindow& window = document.windows[seen.index];
    memory.append(Segment(file.header().shape, window.count, window.entries));
  }
  return memory;
}

std::vector<std::unique_ptr<DocumentMemory>> load_documents(CpuExec& exec, const MemoryFile& file,
                                                            std::span<const std::uint32_t> ids, const Lookup& lookup) {
  std::vector<std::unique_ptr<DocumentMemory>> documents;
  for (const std::uint32_t id : ids) {
    const StoredDocument& document = file.documents()[id];
    if (document.windows.empty()) continue;
    documents.push_back(std::make_unique<DocumentMemory>(load_document(exec, file, document, lookup)));
  }
  return documents;
}

bool joint_index_is_within(const MemoryFile& file, std::span<const std::uint32_t> ids) {
  const std::vector<CoveredDocument>& covered = file.joint_index().documents;
  return !covered.empty() && std::ranges::includes(ids, covered, {}, {}, &CoveredDocument::document);
}

bool has_joint_index_for(const MemoryFile& file, std::span<const std::uint32_t> ids, const Lookup& lookup) {
  if (lookup.kind != Lookup::Kind::ivf || !joint_index_is_within(file, ids)) return false;
  MEMLANE_EXPECTS(file.is_joint_index_verified());
  return is_index_of(lookup, file.joint_index().blobs.front());
}

JointIndex load_joint_index(CpuExec& exec, const MemoryFile& file, const Lookup& lookup) {
  MEMLANE_EXPECTS(file.is_joint_index_verified());
  const StoredJointIndex& stored = file.joint_index();
  std::vector<std::size_t> entries;
  for (const CoveredDocument& document : stored.documents) entries.push_back(document.entries);
  try {
    return JointIndex::load(exec, file.header().shape, lookup, stored.blobs, std::move(entries));
  } catch (const InputError& error) {
    input_error("{}: {}", file.path().string(), error.what());
  }
}

IndexBytes stored_index_bytes(const CpuExec& exec, const MemoryFile& file, std::span<const std::uint32_t> ids,
                              const Lookup& lookup) {
  IndexBytes bytes;
  if (!lookup.has_index()) return bytes;
  const EntryShape& shape = file.header().shape;
  std::size_t making = 0;
  const bool joint = has_joint_index_for(file, ids, lookup);
  if (joint) {
    const StoredJointIndex& index = file.joint_index();
    std::size_t all = 0;
    for (const auto& blob : index.blobs) all += blob.size();
    bytes.own =
        index.blobs.size() * ListIndex::own_bytes_for(ListSettings::of(lookup), shape.head_dim, index.entries());
    bytes.mapped = all - std::min(all, bytes.own);
  }
  for (const std::uint32_t id : ids) {
    if (joint && file.joint_index().covers(id)) continue;
    const StoredDocument& document = file.documents()[id];
    const std::size_t entries = document.entries(), all = index_bytes(shape, lookup, entries);
    const bool stored =
        has_index_for(file, document, lookup) && document.indexes.entries_covered == entries && lookup.has_lists();
    const std::size_t own = shape.layers.size() * shape.kv_heads *
                            (stored ? ListIndex::own_bytes_for(ListSettings::of(lookup), shape.head_dim, entries) : 0);
    bytes.own += stored ? own : all;
    bytes.mapped += stored ? all - own : 0;
    if (!stored) making = std::max(making, indexing_bytes(exec, shape, lookup, entries, entries));
  }
  bytes.own += making;
  return bytes;
}

std::size_t indexing_bytes(const CpuExec& exec, const EntryShape& shape, const Lookup& lookup, std::size_t at_once,
                           std::size_t in_all) {
  if (!lookup.has_index()) return 0;
  const std::size_t indexes = std::min(exec.threads(), shape.layers.size() * shape.kv_heads);
  if (lookup.has_lists()) {
    return indexes * ListIndex::adding_bytes(ListSettings::of(lookup), shape.head_dim,
                                             shape.head_dim * size_of(shape.dtype), at_once, in_all);
  }
  return indexes * at_once * shape.head_dim * sizeof(float);  // keys, widened
}

std::size_t joint_index_making_bytes(const EntryShape& shape, const Lookup& lookup, std::size_t threads,
                                     std::size_t entries) {
  const ListSettings settings = ListSettings::of(lookup);
  // Each, and what is saved of it.
  return std::min(threads, shape.layers.size() * shape.kv_heads) *
         (2 * ListIndex::bytes_for(settings, shape.head_dim, entries) +
          ListIndex::merging_bytes(settings, shape.head_dim, shape.head_dim * size_of(shape.dtype), entries));
}

std::size_t index_bytes(const EntryShape& shape, const Lookup& lookup, std::size_t entries) {
  const std::size_t indexes = shape.layers.size() * shape.kv_heads;
  if (!lookup.has_index()) return 0;
  if (lookup.has_lists()) return indexes * ListIndex::bytes_for(ListSettings::of(lookup), shape.head_dim, entries);
  return entries * shape.layers.size() * shape.kv_heads * (shape.head_dim * sizeof(float) + sizeof(std::int64_t));
}

}  // namespace memlane
