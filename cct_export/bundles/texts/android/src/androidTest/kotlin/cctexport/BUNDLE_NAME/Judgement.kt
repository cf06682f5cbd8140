package cctexport.BUNDLE_NAME

import kotlin.math.abs
import kotlin.math.log10
import kotlin.math.max
import kotlin.math.pow
import kotlin.math.sqrt

/** How close logits are to those of Keras, and in what they miss the [contract]'s bounds. */
internal class Judgement(
    private val wanted: List<FloatArray>,
    private val given: List<FloatArray>,
    private val contract: Contract,
) {
    /** Signal to noise ratio of the logits minus their mean, which a softmax does not see. */
    val sqnrDb: Double

    /** Images whose best class stands out by more than the error that the scheme may have. */
    val decided: Int

    /** Those of them that have the same best class. */
    val same: Int

    /** The largest difference of a logit, and what it may be at most. */
    val largest: Double
    val limit: Double?

    init {
        require(wanted.isNotEmpty() && wanted.map { it.size } == given.map { it.size })
        val signals = wanted.map(::centred)
        val noises = given.map(::centred).zip(signals) { found, right ->
            DoubleArray(right.size) { right[it] - found[it] }
        }
        val signal = signals.sumOf(::squares)
        val noise = noises.sumOf(::squares)
        sqnrDb = if (noise == 0.0) Double.POSITIVE_INFINITY else 10 * log10(signal / noise)
        val allowed = sqrt(signal / wanted.sumOf { it.size }) * 10.0.pow(-contract.sqnrDb / 20)
        val sure = wanted.indices.filter { margin(wanted[it]) > allowed }
        decided = sure.size
        same = sure.count { best(wanted[it]) == best(given[it]) }
        largest = wanted.zip(given) { right, found ->
            right.indices.maxOf { abs(right[it].toDouble() - found[it]) }
        }.max()
        val highest = wanted.maxOf { row -> row.maxOf { abs(it) } }
        limit = contract.maxAbs?.let { it * max(1.0, highest.toDouble()) }
    }

    /** In what the bounds are missed; empty if they are met. */
    fun failures(): List<String> = buildList {
        if (given.any { row -> row.any { !it.isFinite() } }) add("NaN or infinity among the logits")
        if (oneClass(given) && !oneClass(wanted)) add("one class for every image")
        // "not (reached)", so that a NaN fails.
        if (!(sqnrDb >= contract.sqnrDb)) add("SQNR $sqnrDb dB, less than ${contract.sqnrDb}")
        if (decided == 0 && limit == null) add("no image has a best class that stands out")
        if (same < contract.agreement * decided && decided - same > contract.flips) {
            add("$same of $decided decided images have the same best class")
        }
        if (limit != null && !(largest <= limit)) add("a logit differs by $largest, over $limit")
    }

    override fun toString() = "SQNR %.1f dB, same best class on %d of %d decided images"
        .format(sqnrDb, same, decided)

    private fun centred(logits: FloatArray): DoubleArray {
        val mean = logits.sumOf { it.toDouble() } / logits.size
        return DoubleArray(logits.size) { logits[it] - mean }
    }

    private fun squares(values: DoubleArray) = values.sumOf { it * it }

    private fun best(logits: FloatArray) = logits.indices.maxBy { logits[it] }

    private fun margin(logits: FloatArray) =
        logits.sortedDescending().let { (first, second) -> first.toDouble() - second }

    private fun oneClass(rows: List<FloatArray>) = rows.map(::best).distinct().size == 1
}
