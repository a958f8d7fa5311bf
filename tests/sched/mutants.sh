# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# Mistakes that the simulator must find: mutant NAME SCENE SCHEDULES FILE [SOURCE...], and how the
# file changes: the lines that begin with - must be in it once, in that order and however they are
# indented, and those that begin with + come in their place. FILE is compiled again, or, for a
# header, the SOURCEs that use it.
#
# Each is one that somebody could make: a step left out, two swapped, a check forgotten. The
# schedules are several times what the mutant took when it was written. Sourced by
# tests/test_sched.sh, which says what `mutant` does.

mutants() {
    # -- the bitset
    mutant withdraw_without_the_second_look bitset_claims 20000 region/bitset.c <<'END'
-        if (atomic_load_explicit(&set->level[n][w], memory_order_seq_cst) != 0) {
+        if (false) {
END
    mutant announce_stops_at_the_first_level bitset_claims 5000 region/bitset.c <<'END'
-        bit /= 64;
+        bit /= 64;
+        if (n > 1) {
+            break;
+        }
END
    mutant clear_that_does_not_ask_who_won bitset_claims 5000 region/bitset.c <<'END'
-    if (!(old & mask)) {
-        return false;
-    }
-    if (!(old & ~mask)) {
+    if (!(old & ~mask)) {
END
    mutant set_looks_at_the_summary_first bitset_claims 20000 region/bitset.c <<'END'
-    uint64_t old = atomic_fetch_or_explicit(&set->level[0][bit / 64], mask, memory_order_seq_cst);
-
-    announce(set, bit);
+    announce(set, bit);
+    uint64_t old = atomic_fetch_or_explicit(&set->level[0][bit / 64], mask, memory_order_seq_cst);
END
    mutant mend_that_announces_nothing bitset_mends 100000 region/bitset.c <<'END'
-        if (word != 0) {
-            announce(set, w * 64);
+        if (word != 0) {
END
    # -- budgets
    mutant budget_without_the_exchange budget 5000 alloc/heap.h tests/sched/scene_bitset.c <<'END'
-    } while (!atomic_compare_exchange_weak_explicit(used, &before, before + bytes,
-                                                    memory_order_relaxed, memory_order_relaxed));
+    } while (false);
+    atomic_store_explicit(used, before + bytes, memory_order_relaxed);
END
    # -- runs of units
    mutant release_without_announcing units_runs 2000 region/units.c <<'END'
-        announce(segment, superslab, ~left);
END
    mutant retract_without_the_second_look units_runs 5000 region/units.c <<'END'
-    /* UNITS-RUNS: the hint first, then the word again. */
-    announce(segment, superslab,
-             registry_free_units(&segment->registry[superslab], memory_order_seq_cst));
END
    mutant lengths_without_the_second_look units_runs 100000 region/units.c <<'END'
-        *superslab = find_hint(segment, length, 0);
-        if (*superslab != BITSET_NONE) {
-            atomic_fetch_or_explicit(&segment->lengths, (uint64_t)1 << length,
-                                     memory_order_seq_cst);
-            return length;
-        }
END
    mutant length_that_is_looked_for_again units_far 20000 region/units.c <<'END'
-        left &= ~((uint64_t)1 << length);
END
    mutant span_that_is_not_rolled_back units_runs 5000 region/units.c <<'END'
-        give_back(segment, first, done);
END
    mutant run_taken_by_a_store units_runs 5000 region/units.c <<'END'
-        if (atomic_compare_exchange_weak_explicit(word, &before, after, memory_order_seq_cst,
-                                                  memory_order_seq_cst)) {
+        atomic_store_explicit(word, after, memory_order_seq_cst);
+        if (true) {
END
    mutant span_that_is_too_polite units_spans 5000 region/units.c <<'END'
-    while (done < count) {
-        size_t part;
-        uint32_t mask = part_mask(first + done, count - done, &part);
-        if (!take_exactly(
+    while (done < count) {
+        size_t part;
+        uint32_t mask = part_mask(first + done, count - done, &part);
+        if (atomic_load_explicit(&segment->spans_in_flight, memory_order_seq_cst) > 1) {
+            break;
+        }
+        if (!take_exactly(
END
    mutant search_that_tries_once enough_for_all 50000 region/units.c <<'END'
-    while ((length = next_length(segment, count, &superslab)) != 0) {
-        uint32_t now
+    if ((length = next_length(segment, count, &superslab)) != 0) {
+        uint32_t now
END
    # -- giving back
    mutant purge_that_does_not_look_for_holders giveback_needy 20000 region/giveback.c <<'END'
-    if (atomic_load_explicit(&segment->giveback.holders, memory_order_seq_cst) == 0) {
+    if (true) {
END
    mutant dirty_bit_cleared_for_good giveback_stale 20000 region/giveback.c <<'END'
-    /* DIRTY: the bit first, then the word again. */
-    if (wholly_free(segment, superslab)) {
+    if (false) {
END
    mutant purge_without_a_claim giveback_mix 5000 region/giveback.c <<'END'
-           units_claim_superslab(segment, (uint32_t)(highest - count))) {
+           true) {
END
    # -- a slab's life
    mutant settle_reads_the_head_after_the_bits slab_life 40000 alloc/sharedpool_release.c <<'END'
-        enum slab_fill fill = slab_look(slab, head, word);
+        enum slab_fill fill = slab_look(slab, head, word);
+        head = atomic_load_explicit(&slab->head, memory_order_seq_cst);
+        state = head_state(head);
+        if (state != SLAB_FULL && state != SLAB_PARTIAL) {
+            return;
+        }
END
    mutant give_up_that_does_not_look_again slab_frees 5000 alloc/sharedpool_release.c <<'END'
-    settle(by, unit, 0);
END
    mutant claim_in_the_same_generation slab_life 40000 alloc/sharedpool_acquire.c <<'END'
-                                                  head_with(head, SLAB_OWNED) + HEAD_GENERATION,
+                                                  head_with(head, SLAB_OWNED),
END
    mutant fresh_slab_in_the_same_generation slab_reuse 20000 alloc/slab.c <<'END'
-                          head_freed(last) + HEAD_GENERATION + head_make(cls, units, SLAB_OWNED),
+                          head_freed(last) + head_make(cls, units, SLAB_OWNED),
END
    mutant publish_before_the_head_is_partial slab_life 20000 alloc/sharedpool_release.c <<'END'
-    atomic_store_explicit(&slab->head,
-                          head_with(head, fill == SLAB_SOME_ROOM ? SLAB_PARTIAL : SLAB_FULL),
-                          memory_order_seq_cst);
-    if (fill == SLAB_SOME_ROOM) {
-        publish(by, unit, head_class(head));
-    }
+    if (fill == SLAB_SOME_ROOM) {
+        publish(by, unit, head_class(head));
+    }
+    atomic_store_explicit(&slab->head,
+                          head_with(head, fill == SLAB_SOME_ROOM ? SLAB_PARTIAL : SLAB_FULL),
+                          memory_order_seq_cst);
END
    mutant full_slab_that_nobody_publishes slab_frees 5000 alloc/sharedpool_release.c <<'END'
-        if (fill == SLAB_SOME_ROOM) {
-            publish(by, unit, head_class(head));
-            return;
+        if (fill == SLAB_SOME_ROOM) {
+            return;
END
    mutant claim_without_the_exchange slab_life 20000 alloc/sharedpool_acquire.c <<'END'
-        if (atomic_compare_exchange_weak_explicit(&slab->head, &head,
-                                                  head_with(head, SLAB_OWNED) + HEAD_GENERATION,
-                                                  memory_order_seq_cst, memory_order_relaxed)) {
+        atomic_store_explicit(&slab->head, head_with(head, SLAB_OWNED) + HEAD_GENERATION,
+                              memory_order_seq_cst);
+        if (true) {
END
    mutant free_that_overwrites_the_word slab_frees 5000 alloc/slab.h \
        alloc/sharedpool_release.c <<'END'
-    return atomic_fetch_or_explicit(&slab->bits[word], mask, memory_order_seq_cst);
+    uint64_t was = atomic_load_explicit(&slab->bits[word], memory_order_seq_cst);
+    atomic_store_explicit(&slab->bits[word], was | mask, memory_order_seq_cst);
+    return was;
END
    # -- threads' slots
    mutant taker_that_forgets_the_abandoned idle_slots 20000 alloc/thread.c <<'END'
-        leave(thread); /* its thread came back meanwhile and went on with another slot */
END
    mutant unpark_that_does_not_see_the_taker idle_slots 20000 alloc/thread.c <<'END'
-        uint32_t next = state == THREAD_IDLE ? THREAD_ACTIVE : THREAD_ABANDONED;
+        uint32_t next = THREAD_ACTIVE;
END
    mutant idle_slot_taken_by_two idle_slots 20000 alloc/thread.c <<'END'
-    if (!atomic_compare_exchange_strong_explicit(&thread->state, &state, THREAD_TAKEN,
-                                                 memory_order_acquire, memory_order_relaxed)) {
-        return false;
-    }
+    atomic_store_explicit(&thread->state, THREAD_TAKEN, memory_order_release);
END
    mutant unpark_that_waits_for_the_taker idle_slots 20000 alloc/thread.c <<'END'
-        uint32_t next = state == THREAD_IDLE ? THREAD_ACTIVE : THREAD_ABANDONED;
+        if (state == THREAD_TAKEN) {
+            state = THREAD_IDLE;
+        }
+        uint32_t next = state == THREAD_IDLE ? THREAD_ACTIVE : THREAD_ABANDONED;
END
    mutant end_that_looks_before_it_stops region_ends 20000 alloc/thread.c <<'END'
-    atomic_store_explicit(&stopped, 1, memory_order_seq_cst);
-    while (atomic_load_explicit(&entered, memory_order_seq_cst) != 0) {
-        sched_yield();
-    }
+    while (atomic_load_explicit(&entered, memory_order_seq_cst) != 0) {
+        sched_yield();
+    }
+    atomic_store_explicit(&stopped, 1, memory_order_seq_cst);
END
    mutant enter_that_does_not_look region_ends 20000 alloc/thread.c <<'END'
-    while (unlikely(atomic_load_explicit(&stopped, memory_order_seq_cst) != 0)) {
+    while (false) {
END
    # -- large objects
    mutant large_free_without_the_exchange large_frees 5000 alloc/large.c <<'END'
-        !atomic_compare_exchange_strong_explicit(&slab->head, &head, head_freed(head),
-                                                 memory_order_acq_rel, memory_order_relaxed)) {
+        false) {
END
}
