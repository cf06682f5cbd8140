// What the Android bundle uses of Android, on a JVM: just enough to compile and run it in a test.
package android.content

import android.content.res.AssetManager

class Context(val assets: AssetManager)
