#include "memory/memory.h"

#include <algorithm>

#include "kernels/block_begins.h"
#include "kernels/entry_weights.h"
#include "kernels/top_k.h"
#include "memory/list_index.h"
#include "memory/lost_pages.h"

namespace memlane {

namespace {

/// Bytes of proposals that a call may hold at once; tokens are taken in pieces that fit.
constexpr std::size_t kProposalBytes = std::size_t{64} << 20;
/// Query rows that one thread hands to an index at once.
constexpr std::size_t kRowsPerSearch = 128;

/// Bytes of what is found for one token: of what is chosen; with FAISS also of what one document and all of them
/// propose.
std::size_t found_bytes(const Lookup& lookup, std::size_t heads, std::size_t k, std::size_t documents) {
  const std::size_t times = lookup.kind == Lookup::Kind::faiss ? documents + 2 : 1;
  return heads * times * k * (sizeof(std::int64_t) + sizeof(float));
}

/// Values that are asked of a disk before the first of them is read.
constexpr std::size_t kReadAhead = 16384;

/// Tokens whose proposals fit in kProposalBytes.
std::size_t proposing_tokens(const Lookup& lookup, std::size_t heads, std::size_t k, std::size_t documents) {
  return std::max<std::size_t>(1, kProposalBytes / found_bytes(lookup, heads, k, documents));
}

/// Tokens [begin, end) of a partial.
AttentionPartial slice(const AttentionPartial& partial, std::size_t begin, std::size_t end) {
  return {partial.sum.slice(begin, end), partial.max.slice(begin, end), partial.weight.slice(begin, end)};
}

View<const EntryBlock, 2> join(std::span<const DocumentMemory* const> documents, std::size_t layer_slot,
                               std::vector<EntryBlock>& storage) {
  const std::size_t kv_heads = documents.front()->shape().kv_heads;
  std::size_t of_head = 0;
  for (const DocumentMemory* document : documents) of_head += document->blocks(layer_slot, 0).size();
  storage.clear();
  storage.reserve(kv_heads * of_head);
  for (std::size_t head = 0; head < kv_heads; ++head) {
    for (const DocumentMemory* document : documents) {
      const auto blocks = document->blocks(layer_slot, head);
      storage.insert(storage.end(), blocks.begin(), blocks.end());
    }
  }
  return {storage.data(), {kv_heads, storage.size() / kv_heads}};
}

}  // namespace

Memory::Memory(EntryShape shape, Lookup lookup)
    : shape_(std::move(shape)), lookup_(std::move(lookup)), joined_(shape_.layers.size()) {
  if (lookup_.has_lists()) lists_ = ListSettings::of(lookup_);
}

void Memory::add(const DocumentMemory& document) {
  MEMLANE_EXPECTS(document.shape() == shape_);
  documents_.push_back(&document);
}

void Memory::add(std::span<const DocumentMemory* const> documents, const JointIndex& index) {
  MEMLANE_EXPECTS(lookup_.kind == Lookup::Kind::ivf && documents_.empty());
  MEMLANE_EXPECTS(documents.size() == index.entries_of_documents().size());
  for (std::size_t i = 0; i < documents.size(); ++i) {
    MEMLANE_EXPECTS(documents[i]->entries() == index.entries_of_documents()[i]);
    add(*documents[i]);
  }
  joint_ = &index;
}

std::size_t Memory::entries() const {
  std::size_t sum = 0;
  for (const DocumentMemory* document : documents_) sum += document->entries();
  return sum;
}

View<const EntryBlock, 2> Memory::all_blocks(std::size_t layer_slot) {
  Joined& joined = joined_[layer_slot];
  const auto is_of = [](const DocumentMemory* document, std::uint64_t version) {
    return document->version() == version;
  };
  if (!std::ranges::equal(documents_, joined.versions, is_of)) {
    joined.versions.clear();  // until the blocks are there
    join(documents_, layer_slot, joined.blocks);
    for (const DocumentMemory* document : documents_) joined.versions.push_back(document->version());
  }
  return {joined.blocks.data(), {shape_.kv_heads, joined.blocks.size() / shape_.kv_heads}};
}

void Memory::attend(CpuExec& exec, std::size_t layer_slot, View<const float, 3> queries, float scale,
                    AttentionPartial out) {
  MEMLANE_EXPECTS(!empty() && !queries.empty());
  if (observer_) observer_(layer_slot, queries, scale);
  const View<const EntryBlock, 2> all = all_blocks(layer_slot);
  if (lookup_.kind == Lookup::Kind::dense) {
    return attend_in_pieces(exec, queries, all, scale, out);
  }
  const std::size_t piece = tokens_at_once(queries.extent(1));
  const bool estimates = lookup_.has_lists() && lists_.tail;
  for (std::size_t begin = 0; begin < queries.extent(0); begin += piece) {
    const std::size_t end = std::min(queries.extent(0), begin + piece);
    const View<const float, 3> of_piece = queries.slice(begin, end);
    AttentionPartial tail;
    if (estimates) tail = tail_.get(end - begin, queries.extent(1), queries.extent(2));
    const Selected selected = select(exec, layer_slot, of_piece, scale, all, estimates ? &tail : nullptr);
    // Chosen entries are scattered over the file: what a token's bring with them is looked at before the next.
    const std::size_t of_token = queries.extent(1) * selected.ids.extent(2);
    std::size_t step = end - begin;
    if (pieces_.pause) step = std::max<std::size_t>(1, pieces_.bytes / (of_token * kMappedAround));
    const bool reads_ahead = read_ahead_ != nullptr && lookup_.has_lists();
    if (reads_ahead) step = std::min(step, std::max<std::size_t>(1, kReadAhead / of_token));
    for (std::size_t at = begin; at < end; at += step) {
      const std::size_t first = at - begin, last = std::min(end - begin, first + step);
      if (pieces_.pause) pieces_.pause();
      if (reads_ahead) read_values_ahead(exec, all, selected.ids.slice(first, last));
      attend_selected(exec, of_piece.slice(first, last), all, selected.ids.slice(first, last),
                      selected.scores.slice(first, last), scale, slice(out, at, begin + last));
    }
    if (estimates) merge(exec, slice(out, begin, end), tail);
    if (pieces_.pause) pieces_.pause();
  }
}

void Memory::add_weights(CpuExec& exec, std::size_t layer_slot, View<const float, 3> queries, float scale,
                         View<const float, 2> max, View<const float, 2> weight, double factor, std::span<double> sums) {
  MEMLANE_EXPECTS(!empty() && !queries.empty() && sums.size() == entries());
  const View<const EntryBlock, 2> all = all_blocks(layer_slot);
  if (lookup_.kind == Lookup::Kind::dense) {
    return add_entry_weights(exec, queries, all, scale, max, weight, factor, sums);
  }
  const std::size_t piece = tokens_at_once(queries.extent(1));
  for (std::size_t begin = 0; begin < queries.extent(0); begin += piece) {
    const std::size_t end = std::min(queries.extent(0), begin + piece);
    const Selected selected = select(exec, layer_slot, queries.slice(begin, end), scale, all, nullptr);
    add_selected_weights(selected.ids, selected.scores, scale, max.slice(begin, end), weight.slice(begin, end), factor,
                         sums);
  }
}

std::size_t Memory::tokens_at_once(std::size_t heads) const {
  return proposing_tokens(lookup_, heads, std::min(lookup_.top_k, entries()), documents_.size());
}

std::size_t Memory::lookup_bytes(const Lookup& lookup, const LookupSize& size) {
  const std::size_t k = std::min(lookup.top_k, size.entries);
  if (lookup.kind == Lookup::Kind::dense || k == 0) return 0;
  const std::size_t tokens = std::min(size.tokens, proposing_tokens(lookup, size.heads, k, size.documents));
  std::size_t bytes = tokens * found_bytes(lookup, size.heads, k, size.documents);
  if (lookup.has_lists()) {
    const ListSettings settings = ListSettings::of(lookup);
    if (settings.tail) bytes += tokens * size.heads * (size.head_dim + 2) * sizeof(float);
    const bool clustered = lookup.kind == Lookup::Kind::ivf;
    const std::size_t documents = std::max<std::size_t>(size.documents, 1);
    const std::size_t chunks = size.entries / settings.chunk + documents;
    const std::size_t lists = clustered ? ListIndex::lists_at_most(settings, size.entries, documents) : chunks;
    const ListSearch how = {.probes = clustered ? settings.probes_of(lists) : lists,
                            .candidates = settings.candidates(lookup.top_k)};
    bytes += search_lists_bytes(size.threads, how,
                                {.tokens = tokens,
                                 .heads = size.heads,
                                 .kv_heads = size.kv_heads,
                                 .head_dim = size.head_dim,
                                 .entries = size.entries,
                                 .chunks = chunks,
                                 .lists = lists,
                                 .estimates = settings.tail});
  }
  return bytes;
}

Memory::Selected Memory::select(CpuExec& exec, std::size_t layer_slot, View<const float, 3> queries, float scale) {
  return select(exec, layer_slot, queries, scale, all_blocks(layer_slot), nullptr);
}

/// tail: for what is not selected; null for no estimate of it.
Memory::Selected Memory::select(CpuExec& exec, std::size_t layer_slot, View<const float, 3> queries, float scale,
                                View<const EntryBlock, 2> all, const AttentionPartial* tail) {
  const StageScope stage(exec.stage_clock(), Stage::search);
  const std::size_t tokens = queries.extent(0);
  const std::size_t heads = queries.extent(1);
  const std::size_t k = std::min(lookup_.top_k, entries());
  ids_.reserve_discarding(tokens * heads * k);
  scores_.reserve_discarding(tokens * heads * k);
  const auto ids = ids_.view<3>({tokens, heads, k});
  const auto scores = scores_.view<3>({tokens, heads, k});
  if (lookup_.kind == Lookup::Kind::exact) {
    scan_in_pieces(exec, queries, all, ids, scores);
  } else if (lookup_.has_lists()) {
    search(exec, layer_slot, queries, scale, all, ids, scores, tail);
  } else {
    propose_all(exec, layer_slot, queries, ids, scores);
  }
  return {ids, scores};
}

/// Searches the lists of all documents together: those over several, and those of each other by itself.
void Memory::search(CpuExec& exec, std::size_t layer_slot, View<const float, 3> queries, float scale,
                    View<const EntryBlock, 2> all, View<std::int64_t, 3> ids, View<float, 3> scores,
                    const AttentionPartial* tail) {
  chunks_.clear();
  for (std::size_t head = 0; head < shape_.kv_heads; ++head) {
    std::size_t first = 0;
    const auto take = [&](const KeyIndex& index, std::size_t entries) {
      for (ListChunk chunk : index.chunks()) {
        chunk.first_entry = static_cast<std::uint32_t>(first);
        chunks_.push_back(chunk);
      }
      first += entries;
    };
    if (joint_ != nullptr) take(joint_->index(layer_slot, head), joint_->entries());
    const std::size_t covered = joint_ == nullptr ? 0 : joint_->entries_of_documents().size();
    for (const DocumentMemory* document : std::span(documents_).subspan(covered)) {
      if (document->entries() == 0) continue;
      const KeyIndex* index = document->index(layer_slot, head);
      MEMLANE_EXPECTS(index != nullptr);
      take(*index, document->entries());
    }
  }
  std::size_t lists = 0;  // of a head: others have about as many, in as many chunks
  for (std::size_t i = 0; i < chunks_.size() / shape_.kv_heads; ++i) lists += chunks_[i].lists;
  const ListSearch how = {.probes = lists_.probes_of(lists),
                          .candidates = lists_.candidates(lookup_.top_k),
                          .mass = lists_.mass,
                          .scale = scale,
                          .count = count_,
                          .read_ahead = read_ahead_};
  search_lists(exec, queries, all, {chunks_.data(), {shape_.kv_heads, chunks_.size() / shape_.kv_heads}}, how, ids,
               scores, tail);
}

void Memory::read_values_ahead(CpuExec& exec, View<const EntryBlock, 2> all, View<const std::int64_t, 3> ids) const {
  const BlockBegins begins(all);
  const std::size_t heads = ids.extent(1), k = ids.extent(2), group = heads / shape_.kv_heads;
  const std::size_t row_bytes = shape_.head_dim * size_of(shape_.dtype);
  exec.pool().run(ids.extent(0) * heads, [&](std::size_t row, std::size_t) {
    const EntryBlock* const blocks = all.data() + row % heads / group * all.extent(1);
    for (const std::int64_t id : std::span(ids.data() + row * k, k)) {
      if (id < 0) break;
      const auto entry = static_cast<std::size_t>(id);
      const std::size_t block = begins.block_of(entry);
      read_ahead_(static_cast<const std::byte*>(blocks[block].values) + (entry - begins[block]) * row_bytes, row_bytes);
    }
  });
}

/// Each document's index (or a scan of a document whose index waits for keys) proposes; the best of all proposals are
/// kept.
void Memory::propose_all(CpuExec& exec, std::size_t layer_slot, View<const float, 3> queries, View<std::int64_t, 3> ids,
                         View<float, 3> scores) {
  const std::size_t tokens = queries.extent(0);
  const std::size_t heads = queries.extent(1);
  const std::size_t k = ids.extent(2);
  const std::size_t n = documents_.size() * k;
  proposed_ids_.reserve_discarding(tokens * heads * n);
  proposed_scores_.reserve_discarding(tokens * heads * n);
  Buffer<std::int64_t> document_ids(tokens * heads * k);
  Buffer<float> document_scores(tokens * heads * k);
  std::int64_t base = 0;
  for (std::size_t d = 0; d < documents_.size(); ++d) {
    propose(exec, *documents_[d], layer_slot, queries, document_ids.view<3>({tokens, heads, k}),
            document_scores.view<3>({tokens, heads, k}));
    for (std::size_t pair = 0; pair < tokens * heads; ++pair) {
      for (std::size_t i = 0; i < k; ++i) {
        const std::int64_t id = document_ids.data()[pair * k + i];
        proposed_ids_.data()[pair * n + d * k + i] = id < 0 ? -1 : base + id;
        proposed_scores_.data()[pair * n + d * k + i] = document_scores.data()[pair * k + i];
      }
    }
    base += static_cast<std::int64_t>(documents_[d]->entries());
  }
  select_best(exec, proposed_ids_.view<3>({tokens, heads, n}), proposed_scores_.view<3>({tokens, heads, n}), ids,
              scores);
}

void Memory::propose(CpuExec& exec, const DocumentMemory& document, std::size_t layer_slot,
                     View<const float, 3> queries, View<std::int64_t, 3> ids, View<float, 3> scores) {
  if (document.entries() == 0) {
    std::fill_n(ids.data(), ids.size(), -1);
    return;
  }
  const DocumentMemory* const only = &document;
  const View<const EntryBlock, 2> blocks = join({&only, 1}, layer_slot, of_document_);
  if (document.index(layer_slot, 0) == nullptr) return top_k_scan(exec, queries, blocks, ids, scores);
  const std::size_t tokens = queries.extent(0);
  const std::size_t heads = queries.extent(1);
  const std::size_t head_dim = queries.extent(2);
  const std::size_t group = heads / shape_.kv_heads;
  const std::size_t k = ids.extent(2);
  const std::size_t tokens_per_item = std::max<std::size_t>(1, kRowsPerSearch / group);
  const std::size_t pieces = (tokens + tokens_per_item - 1) / tokens_per_item;
  exec.pool().run(shape_.kv_heads * pieces, [&](std::size_t item, std::size_t) {
    const std::size_t kv_head = item / pieces;
    const std::size_t first = item % pieces * tokens_per_item;
    const std::size_t count = std::min(tokens_per_item, tokens - first);
    Buffer<float> rows(count * group * head_dim);
    Buffer<std::int64_t> found(count * group * k);
    for (std::size_t t = 0; t < count; ++t) {
      std::copy_n(queries.data() + ((first + t) * heads + kv_head * group) * head_dim, group * head_dim,
                  rows.data() + t * group * head_dim);
    }
    document.index(layer_slot, kv_head)
        ->search(rows.view<2>({count * group, head_dim}), found.view<2>({count * group, k}));
    for (std::size_t t = 0; t < count; ++t) {
      std::copy_n(found.data() + t * group * k, group * k, ids.data() + ((first + t) * heads + kv_head * group) * k);
    }
  });
  score_entries(exec, queries, blocks, ids, scores);
}

}  // namespace memlane
